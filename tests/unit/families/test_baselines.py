"""The baselines against independent computations."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from dinodp import store
from dinodp.embeddings import EmbeddingReader
from dinodp.errors import InputError
from dinodp.families import model_options
from dinodp.families.patchcore import neighbourhood_means
from dinodp.families.stages import fit_model, fit_state, load_model, model_of, score_split
from dinodp.models import coreset

N, ROWS, COLUMNS, DIM = 9, 4, 5, 6


@pytest.fixture(scope="module")
def content():
    """Tokens [9, 4, 5, 6], and their foreground."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(ROWS, COLUMNS, DIM))
    tokens = centres + 0.4 * generator.normal(size=(N, ROWS, COLUMNS, DIM))
    return tokens.astype(np.float16), generator.random((N, ROWS, COLUMNS)) > 0.3


@pytest.fixture
def source(content, tmp_path):
    with store.writing(tmp_path / "t.h5", "embeddings", {}) as file:
        file.create_dataset("tokens", data=content[0])
        file.create_dataset("foreground", data=content[1])
    return EmbeddingReader(tmp_path / "t.h5", grid=None)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def seen(content):
    """Unit vectors [9, 4, 5, 6], float64."""
    return unit(content[0].astype(np.float64))


def fitted(source, **entry):
    options = model_options({"scores": [], **entry})
    state = fit_state(options, source, source, seed=3, device="cpu").state
    return model_of(options, state, source, seed=3, device="cpu"), state


def scores(source, shown=None, **entry):
    model, _ = fitted(source, **entry)
    placed = () if shown is None else (torch.from_numpy(shown),)
    return model.score(source.read(range(N)), pd.DataFrame(), *placed)[model.names[0]]


@pytest.mark.parametrize("variance", [0.4, 0.6, 0.8])
def test_the_residual_is_that_of_scikit_learns_pca(source, seen, variance):
    x = seen.reshape(-1, DIM)
    pca = PCA(variance, svd_solver="full").fit(x)
    left = x - pca.inverse_transform(pca.transform(x))
    found = scores(source, family="pca_residual", variance=variance)
    np.testing.assert_allclose(found.ravel(), (left**2).sum(1), rtol=1e-4, atol=1e-7)


def test_the_number_of_axes_may_be_given(source):
    _, state = fitted(source, family="pca_residual", axes=2)
    assert state["axes"].shape == (DIM, 2)
    with pytest.raises(InputError, match=r"axes is 6; at most 5 of 6 can be kept\."):
        fitted(source, family="pca_residual", axes=DIM)


@pytest.mark.parametrize("background", ["keep", "leave_out"])
def test_padim_is_a_gaussian_per_place(source, seen, content, background):
    shown = content[1] if background == "leave_out" else np.ones_like(content[1])
    entry = {"random_dims": 4, "prior_images": 5.0, "reg_covar": 1e-3, "background": background}
    model, state = fitted(source, family="padim", **entry)
    dims, x = state["dims"], seen[..., state["dims"]]
    assert len(set(dims)) == 4
    found = model.score(source.read(range(N)), pd.DataFrame(), torch.from_numpy(shown))["mahalanobis"]
    own = [[x[shown[:, r, c], r, c] for c in range(COLUMNS)] for r in range(ROWS)]
    within = [part - part.mean(0) for row in own for part in row if len(part)]
    pooled = np.concatenate(within).T @ np.concatenate(within) / shown.sum()
    for r in range(ROWS):
        for c in range(COLUMNS):
            n, part = len(own[r][c]), own[r][c]
            mean = part.mean(0) if n else x[shown].mean(0)
            scatter = (part - mean).T @ (part - mean)
            covariance = (scatter + 5.0 * pooled) / (n + 5.0) + 1e-3 * np.eye(4)
            off = x[:, r, c] - mean
            expected = np.sqrt(np.einsum("nd,de,ne->n", off, np.linalg.inv(covariance), off))
            np.testing.assert_allclose(found[:, r, c], expected, rtol=1e-3)


def test_a_place_where_nothing_is_shown_has_the_gaussian_of_all(content, tmp_path):
    shown = content[1].copy()
    shown[:, 0, 0] = False
    with store.writing(tmp_path / "t.h5", "embeddings", {}) as file:
        file.create_dataset("tokens", data=content[0])
        file.create_dataset("foreground", data=shown)
    reader = EmbeddingReader(tmp_path / "t.h5", grid=None)
    _, state = fitted(reader, family="padim", background="leave_out")
    np.testing.assert_allclose(state["mean"][0, 0], reader.read(range(N))[shown].mean(0), atol=1e-5)


def test_padim_refuses_another_grid_and_too_many_numbers(source):
    model, _ = fitted(source, family="padim")
    with pytest.raises(InputError, match=r"An image has 5 x 4 patches; the model knows 4 x 5 places\."):
        model.score(source.read([0]).transpose(1, 2), pd.DataFrame())
    with pytest.raises(InputError, match=r"random_dims is 7; it must be at most 6, the length of an embedding\."):
        fitted(source, family="padim", random_dims=7)


def retrieved(seen, shown, k):
    """The k training images whose mean shown embedding has the direction nearest to each image's."""
    means = unit(np.stack([x[inside].mean(0) for x, inside in zip(seen, shown, strict=True)]))
    return np.argsort(-(means @ means.T), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("window", [None, 0, 1])
def test_retrieval_searches_the_most_similar_images_near_the_same_place(source, seen, content, window):
    shown = content[1]
    entry = {"images": 3, "background": "leave_out", **({} if window is None else {"window": window})}
    found = scores(source, shown, family="retrieval_bank", **entry)
    for image, chosen in enumerate(retrieved(seen, shown, 3)):
        for r in range(ROWS):
            for c in range(COLUMNS):
                places = np.argwhere(shown[chosen])
                near = np.ones(len(places), bool) if window is None else np.abs(places[:, 1:] - (r, c)).max(1) <= window
                near = near if near.any() else ~near
                bank = seen[chosen][shown[chosen]][near]
                assert found[image, r, c] == pytest.approx(1 - (bank @ seen[image, r, c]).max(), abs=1e-5)


def test_retrieval_of_all_images_is_the_memory_bank(source):
    every = scores(source, family="retrieval_bank", images=99)
    np.testing.assert_allclose(every, scores(source, family="memory_bank"), atol=1e-6)


def test_a_retrieval_bank_that_is_stored_whole_needs_no_training_split(source):
    options = model_options({"family": "retrieval_bank", "images": 2, "max_images": 5})
    whole = fit_state(options, source, source, seed=3, device="cpu", self_contained=True).state
    kept = model_of(options, whole, source.__class__(source.path, grid=None, rows=[0]), seed=3, device="cpu")
    expected = scores(source, family="retrieval_bank", images=2, max_images=5)
    assert whole["remembered"].shape[0] == 5
    np.testing.assert_allclose(kept.score(source.read(range(N)), pd.DataFrame())["cosine"], expected, atol=2e-3)
    with pytest.raises(InputError, match="descriptors, remembered and shown are of different images"):
        model_of(options, {**whole, "shown": whole["shown"][:3]}, source, seed=3, device="cpu")


def test_neighbourhood_means_are_of_what_is_shown(seen, content):
    shown = content[1]
    found = neighbourhood_means(torch.from_numpy(seen), torch.from_numpy(shown), 3).numpy()
    for image, r, c in np.ndindex(shown.shape):
        about = (image, slice(max(0, r - 1), r + 2), slice(max(0, c - 1), c + 2))
        expected = seen[about][shown[about]].mean(0) if shown[about].any() else seen[image, r, c]
        np.testing.assert_allclose(found[image, r, c], expected, atol=1e-12)


def test_patchcore_is_nearest_of_a_greedy_coreset_and_reweighted(source, seen, tmp_path):
    options = model_options({"family": "patchcore", "coreset_fraction": 0.2, "reweighted_by": 4})
    fit_model(tmp_path / "m.h5", options, source, source, seed=3, device="cpu")
    model = load_model(tmp_path / "m.h5", options, source, device="cpu")
    score_split(model, source, pd.DataFrame(index=range(N)), tmp_path / "s.h5")
    everything = np.ones(seen.shape[:3], dtype=bool)
    means = unit(neighbourhood_means(torch.from_numpy(seen), torch.from_numpy(everything), 3).numpy())
    x = means.reshape(-1, DIM)
    kept = coreset(torch.from_numpy(x).float(), int(0.2 * len(x)), torch.Generator().manual_seed(3))
    bank = NearestNeighbors(n_neighbors=1).fit(x[kept])
    distances, nearest = bank.kneighbors(x)
    np.testing.assert_allclose(store.read_maps(tmp_path / "s.h5")["euclidean"].ravel(), distances[:, 0], atol=2e-3)
    images = store.read_image_scores(tmp_path / "s.h5")["euclidean"]
    for image, found in enumerate(images):
        first = image * ROWS * COLUMNS
        patch = first + distances[first : first + ROWS * COLUMNS, 0].argmax()
        around = bank.kneighbors(x[kept][nearest[patch]], n_neighbors=4)[1][0]
        away = np.linalg.norm(x[kept][around] - x[patch], axis=1)
        weight = 1 - np.exp(distances[patch, 0]) / np.exp(away).sum()
        assert found == pytest.approx(weight * distances[patch, 0], abs=2e-3)


def test_patchcore_without_weights_has_the_image_score_of_the_run(source, tmp_path):
    options = model_options({"family": "patchcore", "reweighted_by": 0})
    fit_model(tmp_path / "m.h5", options, source, source, seed=0, device="cpu")
    model = load_model(tmp_path / "m.h5", options, source, device="cpu")
    score_split(model, source, pd.DataFrame(index=range(N)), tmp_path / "s.h5", image_score_fraction=0.1)
    maps = store.read_maps(tmp_path / "s.h5")["euclidean"].reshape(N, -1)
    expected = np.sort(maps, axis=1)[:, -2:].mean(1)
    np.testing.assert_allclose(store.read_image_scores(tmp_path / "s.h5")["euclidean"], expected, rtol=1e-6)


def test_patchcore_wants_a_middle(source):
    with pytest.raises(InputError, match=r"neighbourhood: 2 is even, so that no patch is in the middle"):
        model_options({"family": "patchcore", "neighbourhood": 2})


def test_features_come_before_placed_models(source):
    model, _ = fitted(source, family="patchcore", pca_dims=3)
    tokens = source.read(range(N))
    maps = model.score(tokens, pd.DataFrame())
    assert maps["euclidean"].shape == (N, ROWS, COLUMNS)
    assert model.image_scores(tokens, maps)["euclidean"].shape == (N,)


def test_what_depends_on_the_seed_says_so():
    random = {
        name: model_options({"family": name}).is_random
        for name in ("pca_residual", "padim", "retrieval_bank", "patchcore")
    }
    assert random == {"pca_residual": False, "padim": False, "retrieval_bank": False, "patchcore": True}
    assert model_options({"family": "padim", "random_dims": 3}).is_random
    assert model_options({"family": "retrieval_bank", "max_images": 3}).is_random
    assert model_options({"family": "patchcore"}).is_variant  # the published ones have features of another network
    assert model_options({"family": "padim"}).is_variant


def test_images_of_several_sizes_are_refused(source):
    class Several:
        n_images, n_patches, dim = 2, 20, DIM

        def read(self, indices):
            return torch.ones(1, 1, 40, DIM)

        def count(self, images):
            return 20 * len(images)

    for family in ("padim", "retrieval_bank", "patchcore"):
        options = model_options({"family": family})
        with pytest.raises(InputError, match=r"This family compares places: all healthy images must have one size\."):
            fit_state(options, Several(), Several(), seed=0, device="cpu")
