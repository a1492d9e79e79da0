"""Memory banks that are chosen or coded within a bounded memory: coresets from sketches, and indices."""

import importlib.util
import logging
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from dinodp.errors import InputError
from dinodp.families import model_options
from dinodp.families.memory_bank import sketch
from dinodp.families.stages import fit_state, model_of, require_sound_state
from dinodp.models import MemoryBank
from dinodp.scans.detecting.scoring import NoEmbeddings

N_IMAGES, SIDE, DIM = 30, 12, 160
MIB_IN_GIB = 1 / 1024


class Clusters:
    """Embeddings of images about 40 centres with variance that falls off, made when they are read."""

    def __init__(self, n_images=N_IMAGES, side=SIDE, dim=DIM):
        self.n_images, self.n_patches, self.dim, self.side = n_images, side * side, dim, side
        fixed = torch.Generator().manual_seed(0)
        self.spectrum = torch.arange(1, dim + 1).float().rsqrt()
        self.centres = torch.randn(40, dim, generator=fixed) * self.spectrum
        self.largest = 0

    def read(self, indices):
        self.largest = max(self.largest, len(indices))
        return torch.stack([self._image(index) for index in indices])

    def _image(self, index):
        generator = torch.Generator().manual_seed(index + 1)
        chosen = torch.randint(40, (self.n_patches,), generator=generator)
        noise = 0.4 * torch.randn(self.n_patches, self.dim, generator=generator) * self.spectrum
        x = torch.nn.functional.normalize(self.centres[chosen] + noise, dim=1)
        return x.view(self.side, self.side, self.dim)

    def count(self, images):
        return len(images) * self.n_patches

    def all(self):
        return self.read(range(self.n_images)).flatten(0, 2)


def fit(source, seed=0, self_contained=False, **entry):
    options = model_options({"family": "memory_bank", **entry})
    return options, fit_state(options, source, source, seed=seed, device="cpu", self_contained=self_contained)


def radius(x, chosen):
    """Chord from the embedding that is farthest from all chosen ones, to the nearest of them."""
    return float((2 * MemoryBank().fit(x[torch.from_numpy(chosen)]).distances(x).clamp(min=0)).sqrt().max())


@pytest.mark.parametrize("fraction", [0.01, 0.1])
def test_a_coreset_from_sketches_covers_nearly_as_well_as_the_exact_one(fraction):
    source = Clusters()
    exact = fit(source, coreset_fraction=fraction)[1].state["embeddings"]
    sketched = fit(source, coreset_fraction=fraction, coreset_memory_gib=2 * MIB_IN_GIB)[1].state["embeddings"]
    assert len(exact) == len(sketched) == len(set(sketched.tolist())) == int(fraction * source.count(range(N_IMAGES)))
    assert sketched.tolist() != exact.tolist()
    x, drawn = source.all(), np.random.default_rng(0).permutation(N_IMAGES * SIDE * SIDE)[: len(exact)]
    assert radius(x, sketched) <= 1.25 * radius(x, exact)
    assert radius(x, drawn) > 1.25 * radius(x, exact)


def test_it_is_the_same_for_the_same_seed_and_reads_a_few_images_at_a_time():
    entry = {"coreset_fraction": 0.05, "coreset_memory_gib": 2 * MIB_IN_GIB}
    source = Clusters()
    states = [fit(source, seed, **entry)[1].state["embeddings"].tolist() for seed in (0, 0, 1)]
    assert states[0] == states[1] != states[2]
    assert source.largest <= 8


def test_what_fits_into_the_memory_is_chosen_exactly():
    source = Clusters()
    by_default = fit(source, coreset_fraction=0.05)[1].state["embeddings"]
    with_room = fit(source, coreset_fraction=0.05, coreset_memory_gib=1.0)[1].state["embeddings"]
    assert by_default.tolist() == with_room.tolist()


def test_of_more_than_fits_as_sketches_a_draw_is_looked_at():
    """272 bytes each: 963 of 4,320 embeddings fit into a quarter of a MiB."""
    chosen = fit(Clusters(), coreset_fraction=0.05, coreset_memory_gib=MIB_IN_GIB / 4)[1].state["embeddings"]
    assert len(set(chosen.tolist())) == 216
    few, state = {"max_embeddings": 3000, "coreset_fraction": 0.1}, {}
    for number in (0, 1):
        memory = {"coreset_memory_gib": MIB_IN_GIB / 4}
        state[number] = fit(Clusters(), **few, **memory)[1].state["embeddings"].tolist()
    assert state[0] == state[1]
    assert len(set(state[0])) == 300


def test_sketches_of_all_and_of_some_agree():
    source, rows = Clusters(), np.array([3, 150, 151, 4000])
    whole = sketch(source, range(N_IMAGES), None, N_IMAGES * SIDE * SIDE, 128)
    some = sketch(source, range(N_IMAGES), rows, 4, 128)
    # products of few rows may round otherwise than those of many, by a step of float16
    torch.testing.assert_close(whole[torch.from_numpy(rows)], some, rtol=2e-3, atol=1e-4)
    x = source.all()[torch.from_numpy(rows)]
    torch.testing.assert_close(some.float() @ some.float().T, x @ x.T, atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (
            {"coreset_fraction": 0.1, "coreset_hours": 1e-12},
            "A coreset of 432 of 4320 embeddings would take about .* hours and 0.0051 GiB, more than coreset_hours: "
            "1e-12 allows: choose a smaller coreset_fraction or max_embeddings, or allow more",
        ),
        (
            {"coreset_fraction": 0.1, "coreset_hours": 1e-12, "coreset_memory_gib": 2 * MIB_IN_GIB},
            "A coreset of 432 of 4320 embeddings would take about .* hours and 0.0011 GiB, more than coreset_hours",
        ),
        (
            {"coreset_fraction": 0.5, "coreset_memory_gib": MIB_IN_GIB / 4},
            r"A coreset of 2160 embeddings is to be chosen from \d+, for no more fit into coreset_memory_gib",
        ),
    ],
)
def test_what_cannot_be_afforded_is_refused_before_it_begins(entry, sentence):
    with pytest.raises(InputError, match=sentence):
        fit(Clusters(), **entry)


def test_what_it_takes_is_said_before(caplog):
    caplog.set_level(logging.INFO, logger="dinodp")
    fit(Clusters(), coreset_fraction=0.01, coreset_memory_gib=2 * MIB_IN_GIB)
    said = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("Coreset: 43 of 4320 embeddings, by 128 numbers each; about ") for line in said)


def test_an_embedding_of_no_length_is_a_sentence():
    source = Clusters()
    source.spectrum = torch.zeros(DIM)
    source.centres = torch.zeros(40, DIM)
    with pytest.raises(InputError, match="length zero"):
        fit(source, coreset_fraction=0.01, coreset_memory_gib=2 * MIB_IN_GIB)


PEAK = """
import sys
sys.path[:0] = {paths}
from test_banks import Clusters, fit
from dinodp.jobs.costs import peak_host_mib
peaks = []
for images in (80, 160):
    fit(Clusters(images, 32, 384), coreset_fraction=0.001, coreset_memory_gib={memory})
    peaks.append(peak_host_mib())
print(peaks[1] - peaks[0])
"""


def test_memory_does_not_grow_with_the_embeddings(root):
    """80 more images are 22 MiB of sketches; held in float32, joined and scaled, they would be 240 MiB.

    What the allocator keeps varies from run to run: 90 MiB more were seen.
    """
    paths = [str(root / "tests/unit/families"), str(root / "scripts")]
    script = PEAK.format(paths=paths, memory=64 * MIB_IN_GIB)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[-1]) < 150


@pytest.fixture(scope="module")
def indexed():
    pytest.importorskip("faiss")
    return fit(Clusters(), self_contained=True, search="ivfpq", lists=20, probes=6, code_bytes=40)


def test_an_index_scores_as_the_bank_does_but_for_its_rounding(indexed):
    options, fitted = indexed
    tokens = Clusters(60).read([40, 50])
    tokens[0, 3, 4] = -tokens[0, 3, 4]
    ours = model_of(options, fitted.state, NoEmbeddings(), seed=0, device="cpu").score(tokens, pd.DataFrame())["cosine"]
    bank, whole = fit(Clusters())
    exact = model_of(bank, whole.state, Clusters(), seed=0, device="cpu").score(tokens, pd.DataFrame())["cosine"]
    assert np.corrcoef(ours.ravel(), exact.ravel())[0, 1] > 0.9
    assert ours.argmax() == exact.argmax() == 3 * SIDE + 4


def test_an_index_is_plain_arrays_that_are_checked(indexed):
    options, fitted = indexed
    assert set(fitted.state) == {"images", "centroids", "codebooks", "codes", "list_sizes"}
    assert fitted.vectors == N_IMAGES * SIDE * SIDE
    assert fitted.cost()["vectors"] == fitted.vectors
    assert fitted.size_mib == pytest.approx(sum(value.nbytes for value in fitted.state.values()) / 2**20)
    require_sound_state(options, fitted.state, DIM)
    wrong = {**fitted.state, "codebooks": fitted.state["codebooks"] * np.float32(1e4)}
    with pytest.raises(InputError, match="codebooks runs from"):
        require_sound_state(options, wrong, DIM)


def test_a_coreset_and_a_draw_can_be_indexed():
    pytest.importorskip("faiss")
    for entry in ({"coreset_fraction": 0.3}, {"max_embeddings": 1500}, {"shots": 7}):
        fitted = fit(Clusters(), search="ivfpq", lists=5, **entry)[1]
        assert fitted.state["list_sizes"].sum() == len(fitted.state["codes"]) == fitted.vectors
        assert "embeddings" not in fitted.state


@pytest.mark.parametrize("key", ["lists", "probes", "code_bytes"])
def test_keys_of_an_index_belong_to_it(key):
    with pytest.raises(InputError, match=f"{key} belong to search: ivfpq, and the search is exact"):
        model_options({"family": "memory_bank", key: 8}, "models.x")


def test_without_faiss_nothing_is_chosen_first(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "faiss" else find(name))
    with pytest.raises(InputError, match="The search ivfpq needs a package that is not installed"):
        fit(Clusters(), search="ivfpq", coreset_fraction=0.01, coreset_hours=1e-12)
