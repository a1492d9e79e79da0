"""Every family on a faked accelerator: the scores of the CPU, from tokens that lie on the device."""

import numpy as np
import pytest
import torch
from accelerator_cases import ENTRIES, MORE, made_embeddings, named, scored, small
from fake_device import faked
from torch.utils._pytree import tree_iter

from dinodp.families import FAMILIES
from dinodp.families.stages import continued_state, fit_model, fit_state, load_model, model_of

KINDS = (("cuda", True), ("xpu", True), ("xpu", False), ("mps", False))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return made_embeddings(tmp_path_factory.mktemp("data") / "train.h5")


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
@pytest.mark.parametrize(("kind", "float64"), KINDS)
def test_the_scores_are_those_of_the_cpu(entry, kind, float64, source, monkeypatch):
    options = small(entry)
    expected = scored(options, source, "cpu")
    with faked(monkeypatch, kind, float64=float64) as fake:
        found = scored(options, source, kind)
        assert bool(fake.copies) == float64  # without float64 nothing of a model is on the device
    assert len(found) == len(expected) * (1 + float64)
    for name, values in found.items():
        wanted = expected[name.replace(f"tokens {kind}", "tokens cpu")]
        np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-5)
        assert float64 or values.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(("kind", "float64"), KINDS)
def test_a_fit_goes_on_to_the_state_of_the_cpu(kind, float64, source, monkeypatch):
    options = small({"family": "dpmm"})

    def states(device):
        first = fit_state(options, source, source, seed=1, device=device, self_contained=True).state
        return continued_state(options, first, source, source, n_before=8, seed=2, device=device).state

    expected = states("cpu")
    with faked(monkeypatch, kind, float64=float64):
        found = states(kind)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", [name for name in FAMILIES if hasattr(FAMILIES[name], "build")])
def test_a_mixture_is_built_for_the_device_that_is_named(family):
    assert small({"family": family}).build("xpu").device == torch.device("xpu")


def test_files_are_made_on_the_device_that_is_named(source, tmp_path, monkeypatch):
    options, path = small({"family": "dpmm"}), tmp_path / "m.h5"
    with faked(monkeypatch, "cuda", float64=True) as fake:
        fit_model(path, options, source, source, seed=1, device="cuda")
        assert fake.copies
        assert load_model(path, options, source, device="cuda").mixture.means_.device == fake.device


@pytest.mark.parametrize("family", ["gaussian", "k_means", "layer_fusion", "padim", "pca_residual"])
def test_what_a_model_holds_is_on_the_device(family, source, monkeypatch):
    options = small({"family": family})
    state = fit_state(options, source, source, seed=1, device="cpu").state
    with faked(monkeypatch, "cuda", float64=True) as fake:
        parts = vars(model_of(options, state, source, seed=1, device="cuda")).values()
        tensors = [part for part in tree_iter(list(parts)) if isinstance(part, torch.Tensor)]
        assert {part.device for part in tensors} == {fake.device}


@pytest.mark.parametrize("family", ["eb_mixture", "vmf"])
def test_full_passes_are_made_on_the_device(family, source, monkeypatch):
    """From embeddings that are read on the CPU."""
    with faked(monkeypatch, "cuda", float64=True) as fake:
        mixture = small({"family": family}).build("cuda")
        mixture.fit(lambda: [source.read([0, 1, 2]).flatten(0, 2)], torch.Generator().manual_seed(0))
        assert mixture.counts_.device == fake.device


@pytest.mark.parametrize("entry", [{"family": "eb_mixture"}, {"family": "vmf"}, *MORE[:2]], ids=named)
def test_components_are_found_as_on_the_cpu(entry, source, monkeypatch):
    """What alignment with anatomy asks of a mixture."""
    options, x = small(entry), source.read([0]).flatten(0, 2)

    def found(device):
        mixture = options.build(device)
        mixture.load_state(fit_state(options, source, source, seed=1, device="cpu").state)
        shares = [mixture.responsibilities(x)] if options.family == "dpmm" else []
        return [mixture.assign(x), *shares]

    expected = found("cpu")
    with faked(monkeypatch, "cuda", float64=True) as fake:
        values = found("cuda")
        assert {part.device for part in values} == {fake.device}
        for part, wanted in zip(values, expected, strict=True):
            torch.testing.assert_close(part.cpu(), wanted)


def test_the_fake_has_the_rules_of_a_device(monkeypatch):
    """Else nothing here would fail where a copy to the device, or to float64's place, is left out."""
    with faked(monkeypatch, "mps", float64=False) as fake:
        here, there = torch.ones(2, device="mps"), torch.ones(2)
        assert (here.device, there.device) == (fake.device, torch.device("cpu"))
        assert (here + there.sum()).device == fake.device  # a number of the CPU may meet it
        meetings = (
            lambda: here + there, lambda: there[0].add_(here[0]), lambda: torch.cat([here, there]), lambda: here @ there
        )  # fmt: skip
        for wrong in meetings:
            with pytest.raises(RuntimeError, match="all tensors to be on the same device"):
                wrong()
        for wrong in (here.double, lambda: here.sum(0, dtype=torch.float64), lambda: there.double().to("mps")):
            with pytest.raises(TypeError, match="float64"):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(here)
        assert (here + there.to("mps")).cpu().tolist() == [2, 2]
