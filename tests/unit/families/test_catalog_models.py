"""Every model of the catalog, made small: it fits, is written, is read again, and scores the same."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT
from made_files import write_tokens
from PIL import Image

from dinodp import store
from dinodp.datasets.manifest import image_row, make_manifest, select
from dinodp.embeddings import EmbeddingReader
from dinodp.errors import InputError
from dinodp.families import model_options
from dinodp.families.base import FeatureOptions
from dinodp.families.features import Features, position_code
from dinodp.families.k_means import nearest_distance
from dinodp.families.stages import fit_model, load_model, open_split, score_split
from dinodp.models.gaussian_mixture import GaussianMixture

ENTRIES = yaml.safe_load((ROOT / "config/catalog.yaml").read_text())["models"]
CATALOG = {  # an index learns from at least 256 embeddings: tests/unit/families/test_banks.py
    name: entry for name, entry in ENTRIES.items() if entry.get("search") != "ivfpq"
}
N_IMAGES, ROWS, COLUMNS, DIM = 6, 4, 5, 12
SMALL = {
    "components": 5, "epochs": 2, "images_per_batch": 2, "shots": 3, "coreset_fraction": 0.2, "pca_dims": 7,
    "random_dims": 9,
}  # fmt: skip


def small(options):
    """The same options with small numbers; a covariance of few embeddings needs a larger regularisation."""
    regular = {"reg_covar": 1e-3} if "reg_covar" in options else {}
    alone = {"neighbourhood": 1} if options["family"] == "patchcore" else {}  # the far patch is not in its neighbours
    return model_options({**options, **{key: SMALL[key] for key in SMALL if key in options}, **regular, **alone})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Embeddings of three clusters; the last image has one patch far from all of them. All are normal images."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(3, DIM))
    tokens = centres[generator.integers(0, 3, (N_IMAGES, ROWS, COLUMNS))]
    tokens = tokens + 0.1 * generator.normal(size=tokens.shape)
    tokens[-1, 2, 3] = -3 * centres.sum(axis=0)
    rows, made = [], {}
    for split in ("train", "valid", "test"):
        clean = tokens if split == "test" else np.concatenate([tokens[:-1], tokens[:1]])
        made[split] = clean
        for index in range(N_IMAGES):
            path = folder / f"{split}{index}.png"
            mask = np.zeros((8, 10), dtype=np.uint8)
            mask[4:6, 6:8] = 255 * (split == "test" and index == N_IMAGES - 1)  # patch (2, 3)
            Image.fromarray(mask).save(path)
            label = "anomalous" if mask.any() else "normal"
            rows.append(image_row(split, label, path, path if mask.any() else None, f"s{index}"))
    manifest = make_manifest(rows)
    for split, clean in made.items():
        shown = np.arange(clean[..., 0].size).reshape(clean.shape[:3]) % 5 > 0
        write_tokens(folder / f"{split}.h5", clean, manifest, shown)
    return folder, manifest


@pytest.mark.parametrize("name", CATALOG)
def test_fit_write_read_score(name, data, tmp_path):
    folder, manifest = data
    options = small(CATALOG[name])
    train, valid, test = (
        open_split(folder / f"{split}.h5", options, (ROWS, COLUMNS), manifest, split)
        for split in ("train", "valid", "test")
    )
    for copy in ("a", "b"):
        size = fit_model(tmp_path / f"{copy}.h5", options, train, valid, seed=3, device="cpu")
    assert size["model_mib"] >= 0
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    model = load_model(tmp_path / "a.h5", options, train, device="cpu")
    score_split(model, test, select(manifest, "test"), tmp_path / "scores.h5", background=options.background)
    maps = store.read_maps(tmp_path / "scores.h5")
    assert set(maps) == set(options.scores)
    for score, values in maps.items():
        assert values.shape == (N_IMAGES, ROWS, COLUMNS)
        assert np.isfinite(values).all()
        if score != "random":
            assert np.unravel_index(values.argmax(), values.shape) == (N_IMAGES - 1, 2, 3), score


def test_weights_of_the_gaussian_mixture_are_shares_of_the_responsibilities():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, generator=generator) + 4 * (torch.arange(300) % 3 == 0)[:, None]
    mixture = GaussianMixture(4, step_schedule="exp", step_rate=1.0)  # the first step forgets the start
    mixture.initialize(x, generator=generator)
    torch.testing.assert_close(mixture.weights_, torch.full((4,), 0.25))
    responsibilities = mixture.responsibilities(x)
    mixture.partial_fit(x)
    torch.testing.assert_close(mixture.weights_, responsibilities.mean(0), rtol=1e-4, atol=1e-6)
    assert mixture.concentration_ == 1.0


def test_single_gaussian_is_numpys(data, tmp_path):
    folder, manifest = data
    options = model_options({"family": "gaussian", "normalise": False, "reg_covar": 0.01})
    reader = open_split(folder / "train.h5", options, None, manifest, "train")
    fit_model(tmp_path / "m.h5", options, reader, reader, seed=0, device="cpu")
    tokens = reader.read(range(N_IMAGES))
    found = load_model(tmp_path / "m.h5", options, reader, device="cpu").score(tokens, pd.DataFrame())
    x = tokens.numpy().reshape(-1, DIM).astype(np.float64)
    covariance = np.cov(x.T, bias=True) + 0.01 * np.eye(DIM)
    centred = x - x.mean(axis=0)
    squared = np.einsum("nd,de,ne->n", centred, np.linalg.inv(covariance), centred)
    np.testing.assert_allclose(found["mahalanobis"].ravel(), np.sqrt(squared), rtol=1e-4)
    density = 0.5 * (squared + np.linalg.slogdet(2 * np.pi * covariance)[1])
    np.testing.assert_allclose(found["log_likelihood"].ravel(), density, rtol=1e-4)


def test_nearest_distance_by_hand():
    means = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    x = torch.tensor([[0.0, 1.0], [3.0, 3.0], [6.0, 8.0]])
    assert nearest_distance(x, means).tolist() == pytest.approx([1, 1, 5])


def test_all_principal_axes_keep_lengths_and_angles_and_few_keep_most(data):
    reader = EmbeddingReader(data[0] / "train.h5", grid=None)
    tokens = reader.read(range(N_IMAGES)).double().float()
    full = Features.fit(FeatureOptions(pca_dims=DIM), reader)(tokens)
    torch.testing.assert_close(full.norm(dim=-1), tokens.norm(dim=-1))
    gram = [x.flatten(0, 2) @ x.flatten(0, 2).T for x in (full, tokens)]
    torch.testing.assert_close(gram[0], gram[1], rtol=1e-4, atol=1e-5)
    few = Features.fit(FeatureOptions(pca_dims=3), reader)(tokens).flatten(0, 2)
    singular = torch.linalg.svdvals(tokens.flatten(0, 2))
    assert float(few.square().sum()) == pytest.approx(float(singular[:3].square().sum()), rel=1e-4)


def test_more_axes_than_dimensions_are_refused(data):
    with pytest.raises(InputError, match="pca_dims is 13; it must be between 1 and 12"):
        Features.fit(FeatureOptions(pca_dims=13), EmbeddingReader(data[0] / "train.h5", grid=None))


def test_position_code_tells_places_apart_and_neighbours_are_alike():
    code = position_code(8, 8, 16)
    torch.testing.assert_close(code.norm(dim=2), torch.ones(8, 8))
    flat = code.reshape(64, 16)
    similarity = flat @ flat.T
    assert float((similarity - torch.eye(64)).max()) < 0.999
    centre = similarity[27].reshape(8, 8)  # row 3, column 3
    assert float(centre[3, 4]) > float(centre[3, 7])
    assert float(centre[4, 3]) > float(centre[7, 3])


@pytest.mark.parametrize(("position", "dim"), [("appended", DIM + 16), ("added", DIM)])
def test_position_makes_equal_patches_differ_by_place(position, dim):
    tokens = torch.ones(2, 3, 4, DIM)
    found = Features(FeatureOptions(position=position, position_weight=0.25))(tokens)
    assert found.shape == (2, 3, 4, dim)
    assert not torch.equal(found[0, 0, 0], found[0, 2, 3])
    assert torch.equal(found[0], found[1])
    assert float((found[0, 0, 0, -16:] if position == "appended" else found[0, 0, 0] - 1).norm()) == pytest.approx(0.25)


def test_order_of_resampling_and_normalisation(tmp_path):
    with store.writing(tmp_path / "tokens.h5", "embeddings", {}) as file:
        file.create_dataset("tokens", data=np.array([[[[3, 0], [0, 1]]]], dtype=np.float16))  # [1, 1, 2, 2]
    after = EmbeddingReader(tmp_path / "tokens.h5", grid=(1, 1)).read([0]).flatten()
    assert after.tolist() == pytest.approx([0.5, 0.5])
    before = EmbeddingReader(tmp_path / "tokens.h5", grid=(1, 1), resample="before_normalisation").read([0]).flatten()
    assert before.tolist() == pytest.approx([3 / 10**0.5, 1 / 10**0.5], abs=1e-5)
