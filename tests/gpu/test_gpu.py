"""On a real GPU the numbers of the CPU come out, within rounding; what it costs is told, and what does not fit."""

import h5py
import numpy as np
import pytest
import torch
import transformers
from accelerator_cases import (
    ENTRIES,
    METHODS,
    embedded,
    frame_of_pictures,
    made_embeddings,
    named,
    pictures,
    scored,
    small,
)
from scan_phantoms import FAST, head, healthy_folder, save

from dinodp.backbones import load_backbone
from dinodp.distillation.training import NormalImages, distil
from dinodp.embeddings import Embedder, embed_split
from dinodp.errors import memory_sentence, ran_out_of_memory
from dinodp.families.stages import fit_state
from dinodp.jobs.costs import measured
from dinodp.jobs.devices import take_device
from dinodp.models import MemoryBank
from dinodp.options.distillation import DistillationOptions
from dinodp.scans import AnomalyDetector

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 70, "patch_size": 14}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return made_embeddings(tmp_path_factory.mktemp("data") / "train.h5")


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A tiny DINOv2 with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vit")
    transformers.Dinov2Model(transformers.Dinov2Config(**SIZES)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_every_family_gives_the_scores_of_the_cpu(entry, source):
    options = small(entry)
    expected, found = scored(options, source, "cpu"), scored(options, source, "cuda")
    assert len(found) == 2 * len(expected)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name.replace("tokens cuda", "tokens cpu")], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_the_same_seed_gives_the_same_bytes_on_the_same_gpu(entry, source):
    options = small(entry)
    first, second = (fit_state(options, source, source, seed=1, device="cuda").state for _ in range(2))
    for name, values in first.items():
        np.testing.assert_array_equal(np.asarray(values), np.asarray(second[name]))


@pytest.mark.parametrize("layers", [(-1,), (1, -1)])
def test_a_transformer_gives_the_embeddings_of_the_cpu(vit, layers):
    expected, found = (
        torch.cat(embedded(load_backbone(str(vit), resolution=84, layers=layers, device=device))).cpu()
        for device in ("cpu", "cuda")
    )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halved_precision_is_near(vit, dtype):
    """On random weights: it shows that the path runs, not what the precision costs."""
    whole, half = (
        torch.cat(embedded(load_backbone(str(vit), resolution=84, device="cuda", dtype=kind)))
        for kind in ("float32", dtype)
    )
    assert torch.nn.functional.cosine_similarity(whole, half.float(), dim=-1).min() > 0.99


def test_a_split_is_written_as_on_the_cpu(tmp_path):
    frame = frame_of_pictures(tmp_path, 5)
    for device in ("cpu", "cuda"):
        backbone = load_backbone("classical", resolution=70, device=device)
        embed_split(frame, backbone, tmp_path / f"{device}.h5", {}, batch_size=2)
    with h5py.File(tmp_path / "cpu.h5") as expected, h5py.File(tmp_path / "cuda.h5") as found:
        np.testing.assert_allclose(found["tokens"][()], expected["tokens"][()], rtol=2e-3, atol=2e-3)
        np.testing.assert_array_equal(found["foreground"][()], expected["foreground"][()])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method["family"])
def test_own_scans_are_scored_as_on_the_cpu(method, tmp_path):
    folder = healthy_folder(tmp_path / "healthy", 3)
    scan = save(tmp_path / "lesion.nii.gz", head(7, lesion=True))
    options = {**FAST, "resolution": 70, "slice_step": 6, "method": method}
    here, there = (AnomalyDetector(**options, device=device).fit(folder) for device in ("cpu", "cuda"))
    there.save(tmp_path / "model.h5")
    found = AnomalyDetector.load(tmp_path / "model.h5", device="cuda").anomaly_map(scan)
    np.testing.assert_allclose(found, here.anomaly_map(scan), rtol=1e-2, atol=1e-3)


def test_a_bank_finds_the_nearest_of_the_cpu():
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(70_000, 64, generator=generator), torch.randn(3000, 64, generator=generator)
    (distances, index), (expected, place) = (MemoryBank(name).fit(bank).nearest(queries) for name in ("cuda", "cpu"))
    torch.testing.assert_close(distances.cpu(), expected, rtol=1e-5, atol=1e-5)
    assert (index.cpu() == place).float().mean() > 0.999


def test_a_student_of_the_gpu_is_the_same_each_time_and_embeds_as_on_the_cpu(tmp_path):
    grey = [picture[:, :, :1].repeat(3, axis=2) for picture in pictures(4)]
    images = NormalImages("noise", [f"{index:064x}" for index in range(4)], lambda index: grey[index])
    sizes = {"rounds": 3, "images_per_round": 6, "passes": 2, "images_per_step": 3, "stem": 8, "width": 16, "blocks": 2}
    for name in ("first", "again"):
        teacher = load_backbone("classical", resolution=112, square=True, device="cuda")
        distil(teacher, images, DistillationOptions(**sizes), tmp_path / name)
    first, again = ((tmp_path / name / "student.safetensors").read_bytes() for name in ("first", "again"))
    assert first == again
    size = {"resolution": 112, "square": True}
    there, here = (load_backbone(str(tmp_path / "first"), device=device, **size) for device in ("cuda", "cpu"))
    torch.testing.assert_close(torch.cat(embedded(there)).cpu(), torch.cat(embedded(here)), rtol=1e-3, atol=1e-3)


def test_a_batch_that_does_not_fit_is_halved(vit):
    """Memory that runs out for real, within a limit on this process: the pixels alone take 147 MiB."""
    backbone = load_backbone(str(vit), resolution=448, device="cuda")
    expected = torch.cat([tokens.cpu() for tokens in Embedder(backbone, 1).embed(pictures(64))])
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**27) / total)  # 128 MiB
    try:
        embedder = Embedder(backbone, 64)
        found = torch.cat([tokens.cpu() for tokens in embedder.embed(pictures(64))])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert embedder.batch_size < 64
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_what_does_not_fit_is_told():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, device="cuda")
    assert ran_out_of_memory(caught.value)
    assert memory_sentence(caught.value).startswith("The memory of the GPU does not suffice (CUDA out of memory")


def test_what_a_job_costs_names_the_gpu_and_its_peak():
    with measured("cuda") as cost:
        torch.ones(2**20, device="cuda")
    assert cost["peak_gpu_mib"] >= 4
    assert cost["device"] == torch.cuda.get_device_name()


def test_a_free_gpu_is_taken():
    assert take_device("auto").startswith("cuda:")
