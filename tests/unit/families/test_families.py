"""Families of models from embeddings file to scores file."""

import numpy as np
import pandas as pd
import pytest

from dinodp import store
from dinodp.embeddings import EmbeddingReader
from dinodp.families import fit_model, load_model, score_split


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "train.h5"
    with store.writing(path, "embeddings", {}) as file:
        tokens = np.random.default_rng(0).normal(size=(70, 4, 5, 6)).astype(np.float16)
        file.create_dataset("tokens", data=tokens, chunks=(1, 4, 5, 6))
    return EmbeddingReader(path, grid=None)


def score(source, path, options):
    fit_model(path, options, source, source, seed=0, device="cpu")
    model = load_model(path, source, device="cpu")
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
