"""Embeddings at the edge of what numbers can do: each family gives finite scores, or refuses in one sentence."""

import numpy as np
import pandas as pd
import pytest
import torch

from dinodp.errors import InputError
from dinodp.families import FAMILIES, model_options
from dinodp.families.stages import fit_state, model_of

MODELS = {
    "dpmm": {"family": "dpmm", "components": 4, "epochs": 3, "images_per_batch": 2},
    "dpmm_full": {"family": "dpmm", "components": 4, "epochs": 3, "images_per_batch": 2, "covariance": "full"},
    "dpmm_spherical": {"family": "dpmm", "components": 4, "epochs": 3, "covariance": "spherical"},
    "gaussian_mixture": {"family": "gaussian_mixture", "components": 4, "epochs": 3, "images_per_batch": 2},
    "bayesian_mixture": {"family": "bayesian_mixture", "components": 4, "epochs": 3},
    "k_means": {"family": "k_means", "components": 4, "epochs": 3, "images_per_batch": 2},
    "gaussian": {"family": "gaussian"},
    "gaussian_diag": {"family": "gaussian", "covariance": "diag"},
    "memory_bank": {"family": "memory_bank"},
    "pca_residual": {"family": "pca_residual"},
    "padim": {"family": "padim"},
    "padim_drawn": {"family": "padim", "random_dims": 3},
    "retrieval_bank": {"family": "retrieval_bank", "images": 2},
    "retrieval_bank_window": {"family": "retrieval_bank", "images": 2, "window": 1},
    "patchcore": {"family": "patchcore"},
    "memory_bank_coreset": {"family": "memory_bank", "coreset_fraction": 0.25},
    "memory_bank_draw": {"family": "memory_bank", "max_embeddings": 8},
    "pca": {"family": "dpmm", "components": 4, "epochs": 3, "pca_dims": 3},
}


class Images:
    """Embeddings [n, row, col, D] in memory."""

    def __init__(self, data):
        self.data = data.float()
        self.n_images, self.n_patches, self.dim = len(data), data.shape[1] * data.shape[2], data.shape[3]

    def read(self, indices):
        return self.data[list(indices)].clone()

    def count(self, images):
        return len(images) * self.n_patches


def usual(n=6, side=4, dim=5, seed=0):
    return torch.randn(n, side, side, dim, generator=torch.Generator().manual_seed(seed))


def some_not_finite(value):
    data = usual()
    data[2, 1, 1, 3] = value
    return data


DATA = {
    "ordinary": usual(),
    "all zero": torch.zeros(6, 4, 4, 5),
    "constant": torch.ones(6, 4, 4, 5),
    "one training image": usual(1),
    "duplicated images": usual(1).expand(6, -1, -1, -1),
    "one constant image": torch.ones(1, 4, 4, 5),
    "one embedding": usual(1, side=1),
    "fewer embeddings than K": usual(3, side=1),
    "one dimension": usual(dim=1),
    "flat: all in a plane": usual() * torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]),
    "near float16's largest": usual().sign() * 65000,
    "near float16's smallest": usual() * 6e-8,
    "one embedding far away": torch.cat([usual(5), usual(1) * 6e4]),
    "NaN in training": some_not_finite(torch.nan),
    "infinity in training": some_not_finite(torch.inf),
}


def scores_of(entry, train, valid, test):
    options = model_options(entry)
    state = fit_state(options, Images(train), Images(valid), seed=0, device="cpu").state
    arrays = {name: np.asarray(value) for name, value in state.items()}
    model = model_of(options, arrays, Images(train), seed=0, device="cpu")
    return model.score(Images(test).read(range(len(test))), pd.DataFrame(index=range(len(test))))


def outcome(entry, train, valid, test):
    """``finite``, or the sentence of a refusal."""
    try:
        scores = scores_of(entry, train, valid, test)
    except InputError as error:
        return str(error)
    assert scores
    assert all(np.isfinite(values).all() for values in scores.values()), "scores that are not finite"
    return "finite"


def matching(data, dim):
    return data[..., :dim] if data.shape[-1] >= dim else data


@pytest.mark.filterwarnings("error::RuntimeWarning", "ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("data", DATA)
def test_a_fit_at_the_edge_gives_finite_scores_or_a_sentence(model, data):
    train = DATA[data]
    valid, test = (usual(2, side=train.shape[1], dim=train.shape[3], seed=seed) for seed in (1, 2))
    found = outcome(MODELS[model], train, valid, test)
    assert found == "finite" or (found.endswith(".") and "\n" not in found)
    if data == "ordinary":
        assert found == "finite"
    if data in ("NaN in training", "infinity in training") and model != "memory_bank_draw":  # it drew others
        assert found == "Embeddings contain values that are not finite."


@pytest.mark.filterwarnings("error::RuntimeWarning", "ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("value", [0.0, 1.0, 65504.0, torch.nan, torch.inf])
def test_scoring_constant_images_gives_finite_scores_or_a_sentence(model, value):
    found = outcome(MODELS[model], usual(), usual(2, seed=1), torch.full((2, 4, 4, 5), value))
    assert found == "finite" or (found.endswith(".") and "\n" not in found)
    assert not (np.isfinite(value) and value) or found == "finite"
    assert np.isfinite(value) or found != "finite"


@pytest.mark.parametrize("covariance", ["diag", "full", "spherical"])
@pytest.mark.parametrize("components", [2, 16, 95])
def test_any_allowed_number_of_components_gives_finite_scores(components, covariance):
    entry = {**MODELS["dpmm"], "components": components, "covariance": covariance, "reg_covar": 1e-3}
    assert outcome(entry, usual(), usual(2, seed=1), usual(2, seed=2)) == "finite"


@pytest.mark.parametrize("family", [name for name, kind in FAMILIES.items() if "components" in kind.model_fields])
@pytest.mark.parametrize("components", [1, 0, -1])
def test_fewer_than_two_components_are_refused(family, components):
    with pytest.raises(InputError, match=r"components: .* is below the least allowed, 2\."):
        model_options({"family": family, "components": components})
