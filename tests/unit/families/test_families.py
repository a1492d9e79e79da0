"""Families of models: their options, and from embeddings file to scores file."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from dinodp import store
from dinodp.embeddings import EmbeddingReader
from dinodp.errors import InputError
from dinodp.families import FAMILIES, model_options, written_options
from dinodp.families.stages import fit_model, fit_state, load_model, model_of, score_split
from dinodp.scans.detecting.scoring import NoEmbeddings


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "train.h5"
    with store.writing(path, "embeddings", {}) as file:
        tokens = np.random.default_rng(0).normal(size=(70, 4, 5, 6)).astype(np.float16)
        file.create_dataset("tokens", data=tokens, chunks=(1, 4, 5, 6))
    return EmbeddingReader(path, grid=None)


def score(source, path, entry):
    options = model_options(entry)
    fit_model(path, options, source, source, seed=0, device="cpu")
    model = load_model(path, options, source, device="cpu")
    scores = path.with_suffix(".scores.h5")
    score_split(model, source, pd.DataFrame(index=range(source.n_images)), scores)
    return model, scores.read_bytes()


@pytest.mark.parametrize("shots", [None, 50])
def test_a_bank_over_its_memory_is_streamed_to_the_same_bytes(source, tmp_path, shots):
    options = {"family": "memory_bank", "scores": ["cosine"]} | ({"shots": shots} if shots else {})
    held, expected = score(source, tmp_path / "held.h5", options)
    streamed, found = score(source, tmp_path / "streamed.h5", {**options, "bank_memory_gib": 1e-6})
    assert found == expected
    assert hasattr(held.bank, "embeddings_")
    assert not hasattr(streamed.bank, "embeddings_")
    assert streamed.images_per_read > held.images_per_read


def test_the_families_are_found_and_described():
    assert {"dpmm", "memory_bank", "gaussian_mixture", "k_means", "gaussian", "control"} <= {*FAMILIES}
    for name, family in FAMILIES.items():
        assert family.SCORES, name
        assert all(field.description for field in family.model_fields.values() if field.default != name), name


def test_the_catalogs_models_of_the_paper_are_no_variants(root):
    entries = yaml.safe_load((root / "config/catalog.yaml").read_text())["models"]
    models = {name: model_options(entry) for name, entry in entries.items()}
    plain = {name for name, model in models.items() if model.PAPER is not None and not model.is_variant}
    assert plain == {"dpmm_diag", "dpmm_diag_raw", "memory_bank"}
    assert not models["gmm_k100"].is_variant  # of a family that the paper has not
    assert model_options({"family": "dpmm"}).is_variant  # its means start from the whole training set


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({}, r"^models\.x\.family: the key is missing; choose one of bayesian_mixture, control, dpmm"),
        ({"family": "dppm"}, r"^models\.x\.family: 'dppm' is not known; choose one of bayesian_mixture"),
        ({"family": ["dpmm"]}, r"^models\.x\.family: \['dpmm'\] is not known"),
        ("dpmm", r"^models\.x: 'dpmm' is no mapping of keys to values\.$"),
        (
            {"family": "memory_bank", "epochs": 7},
            r"^models\.x: unknown key 'epochs' for the family 'memory_bank'; it has .*shots, coreset_fraction",
        ),
        ({"family": "k_means", "scores": ["mahalanobis"]}, "k_means has no score 'mahalanobis'; choose one of cosine"),
        ({"family": "gaussian", "scores": ["cosine"]}, "gaussian has no score 'cosine'; choose one of mahalanobis"),
        ({"family": "dpmm", "reg_covar": "1e-6"}, r"reg_covar: '1e-6' is no number; .*write 1.0e-6\.$"),
        ({"family": "dpmm", "reg_covar": True}, r"reg_covar: True is no number\.$"),
        ({"family": "dpmm", "reg_covar": 0}, r"reg_covar: 0 is not above 0"),
        ({"family": "dpmm", "components": 1}, r"components: 1 is below the least allowed, 2\.$"),
        ({"family": "dpmm", "components": 2.5}, r"components: 2.5 is no integer\.$"),
        ({"family": "dpmm", "step_rate": 1.5}, "step_rate: 1.5 is above the largest allowed, 1"),
        ({"family": "dpmm", "normalise": "no"}, r"normalise: 'no' is neither true nor false\.$"),
        ({"family": "dpmm", "covariance": "diagonal"}, "covariance: 'diagonal' is not allowed; choose 'diag', "),
        ({"family": "dpmm", "scores": "cosine"}, r"scores: 'cosine' is no list\.$"),
    ],
)
def test_a_wrong_entry_is_one_sentence(entry, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        model_options(entry, "models.x")
    assert "\n" not in str(error.value)


def test_null_is_the_default():
    assert model_options({"family": "dpmm", "components": None, "pca_dims": None}) == model_options({"family": "dpmm"})


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_values_are_read_as_the_same_options(family):
    required = {"maps": "folder"} if family == "external" else {}
    options = model_options({"family": family, "pca_dims": 3, **required})
    assert model_options(options.plain()) == options
    assert written_options({**options.fit_options(), "seed": 3}).fit_options() == options.fit_options()


def test_a_fit_does_not_depend_on_what_only_scoring_needs():
    few = model_options({"family": "dpmm", "scores": ["cosine"]})
    assert few.fit_options() == model_options({"family": "dpmm"}).fit_options()
    small = model_options({"family": "memory_bank", "bank_memory_gib": 1})
    assert small.decisive() == model_options({"family": "memory_bank"}).decisive()


def test_seeds_memory_and_processes_follow_from_the_options():
    bank, coreset, mixture = (
        model_options(entry)
        for entry in (
            {"family": "memory_bank"},
            {"family": "memory_bank", "coreset_fraction": 0.1},
            {"family": "dpmm"},
        )
    )
    assert [bank.is_random, coreset.is_random, mixture.is_random] == [False, True, True]
    assert [bank.fitting_mib(1000), coreset.fitting_mib(1000), mixture.fitting_mib(1000)] == [6000, 10000, 6000]
    assert [bank.scoring_mib(1000), coreset.scoring_mib(1000), mixture.scoring_mib(1000)] == [10096, 10496, 6000]
    large, indexed = 1e5, model_options({"family": "memory_bank", "search": "ivfpq"})
    assert coreset.fitting_mib(large) == 6000 + 4096 + 0.1 * 2 * large
    assert [indexed.is_random, indexed.fitting_mib(1000), indexed.scoring_mib(1000)] == [True, 7000, 11096]
    assert [name for name, family in FAMILIES.items() if family.SHARES_FIT] == ["dpmm", "gaussian_mixture"]
    assert not model_options({"family": "control", "scores": ["oracle"]}).is_random
    assert model_options({"family": "control", "scores": ["random"]}).is_random


@pytest.mark.parametrize("entry", [{"max_embeddings": 130}, {"max_embeddings": 130, "coreset_fraction": 0.2}, {}])
def test_a_bank_that_is_stored_whole_needs_no_training_split(source, tmp_path, entry):
    options, tokens = model_options({"family": "memory_bank", **entry}), source.read([3, 50])
    whole = fit_state(options, source, source, seed=1, device="cpu", self_contained=True)
    fit_model(tmp_path / "m.h5", options, source, source, seed=1, device="cpu")
    read = load_model(tmp_path / "m.h5", options, source, device="cpu")
    kept = model_of(options, whole.state, NoEmbeddings(), seed=1, device="cpu")
    assert len(kept.bank.embeddings_) == {0: 1400, 1: 140, 2: 28}[len(entry)]  # two of each of 70 images
    for name, scores in read.score(tokens, pd.DataFrame()).items():
        np.testing.assert_allclose(kept.score(tokens, pd.DataFrame())[name], scores, atol=2e-3)  # float16


def test_a_draw_takes_equally_many_of_each_image(source):
    options = model_options({"family": "memory_bank", "max_embeddings": 140})
    assert options.is_random
    assert options.is_variant
    chosen = fit_state(options, source, source, seed=1, device="cpu").state["embeddings"]
    assert np.bincount(chosen // 20).tolist() == [2] * 70
    assert len(set(chosen)) == 140


SCORE_MANY = """
import sys
from pathlib import Path

import pandas as pd
import torch

from dinodp.families.stages import score_split
from dinodp.jobs.costs import peak_host_mib


class Source:
    def __init__(self, n_images):
        self.n_images = n_images

    def read(self, indices):
        return torch.ones(len(indices), 32, 32, 384, dtype=torch.float16).float()


class Model:
    names = ("cosine",)

    def score(self, tokens, rows):
        return {"cosine": (tokens.flatten(0, 2) @ tokens[0, 0, 0]).reshape(tokens.shape[:3]).numpy()}


peaks = []
for count in (320, 1280):
    score_split(Model(), Source(count), pd.DataFrame(index=range(count)), Path(sys.argv[1]) / f"{count}.h5")
    peaks.append(peak_host_mib())
print(peaks[1] - peaks[0])
"""


def test_memory_of_scoring_does_not_grow_with_the_images(root, tmp_path):
    """The embeddings of 960 more images are 1440 MiB in float32, their maps 4 MiB; the allocator keeps some batches."""
    done = subprocess.run(
        [sys.executable, "-c", SCORE_MANY, str(tmp_path)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(root / "scripts")},
    )  # fmt: skip
    assert float(done.stdout) < 300
