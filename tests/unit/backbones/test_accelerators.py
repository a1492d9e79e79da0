"""Backbones and the embedding loop on a faked accelerator: what reaches it, how, and what comes back."""

import h5py
import numpy as np
import pytest
import torch
from accelerator_cases import embedded, frame_of_pictures
from fake_device import Copy, faked

from dinodp.backbones import load_backbone
from dinodp.embeddings import Embedder, embed_split

KINDS = ("cuda", "xpu", "mps")
WITHOUT_WAITING = {"cuda": Copy(True, True), "xpu": Copy(True, True), "mps": Copy(False, False)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_transformer_gives_the_embeddings_of_the_cpu(tiny, kind, monkeypatch):
    """Of several layers, as hooks keep them, and at another size than that of its positions."""
    options = {"resolution": 80, "layers": (1, -1)}
    expected = torch.cat(embedded(load_backbone(str(tiny), **options)))
    with faked(monkeypatch, kind, float64=False) as fake:
        backbone = load_backbone(str(tiny), device=kind, **options)
        assert fake.copies  # the weights
        fake.copies.clear()
        found = embedded(backbone)
        assert {tokens.device for tokens in found} == {fake.device}
        assert fake.copies == 3 * [WITHOUT_WAITING[kind]]
        torch.testing.assert_close(torch.cat(found).cpu(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_classical_descriptor_gives_the_embeddings_of_the_cpu(kind, monkeypatch):
    expected = torch.cat(embedded(load_backbone("classical", resolution=70)))
    with faked(monkeypatch, kind, float64=False) as fake:
        found = embedded(load_backbone("classical", resolution=70, device=kind))
        assert {tokens.device for tokens in found} == {fake.device}
        assert WITHOUT_WAITING[kind] in fake.copies
        torch.testing.assert_close(torch.cat(found).cpu(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_is_written_as_on_the_cpu(kind, monkeypatch, tmp_path):
    def embed(device):
        backbone = load_backbone("classical", resolution=70, device=device)
        embed_split(frame_of_pictures(tmp_path, 5), backbone, tmp_path / f"{device}.h5", {}, batch_size=2)

    embed("cpu")
    with faked(monkeypatch, kind, float64=False):
        embed(kind)
    with h5py.File(tmp_path / "cpu.h5") as expected, h5py.File(tmp_path / f"{kind}.h5") as found:
        for name in ("tokens", "foreground"):
            np.testing.assert_array_equal(found[name][()], expected[name][()])


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_number_of_images_batches_are_those_of_a_gpu(kind, monkeypatch):
    with faked(monkeypatch, kind, float64=False):
        assert Embedder(load_backbone("classical", resolution=70, device="auto")).batch_size == 32
    assert Embedder(load_backbone("classical", resolution=70, device="auto")).batch_size == 4


def test_convolutions_of_a_transformer_are_exact(tiny):
    """On NVIDIA's GPUs they would be of 10 bits of mantissa else."""
    backbone, seen = load_backbone(str(tiny), resolution=64), []

    def look(*_):
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic))

    backbone._tokens.register_forward_pre_hook(look)
    embedded(backbone)
    assert set(seen) == {(False, True)}
    assert torch.backends.cudnn.allow_tf32  # as it was
