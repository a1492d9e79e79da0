"""Background left out: of the fit by every family, of the scores just below the lowest other patch."""

import numpy as np
import pandas as pd
import pytest
import torch

from dinodp import store
from dinodp.embeddings import EmbeddingReader
from dinodp.errors import InputError
from dinodp.families import FAMILIES, model_options
from dinodp.families.foreground import ForegroundSource, lowered
from dinodp.families.stages import fit_model, fit_state, load_model, model_of, score_split
from dinodp.store import Maps

SMALL = {
    "dpmm": {"components": 3, "epochs": 2},
    "gaussian_mixture": {"components": 3, "epochs": 2},
    "bayesian_mixture": {"components": 3, "epochs": 2},
    "k_means": {"components": 3, "epochs": 2},
    "eb_mixture": {"components": 3, "epochs": 2},
    "vmf": {"components": 3, "epochs": 2},
    "gaussian": {"reg_covar": 1e-3},
    "memory_bank": {},
    "pca_residual": {},
    "padim": {"random_dims": 3},
    "retrieval_bank": {"images": 2, "window": 1},
    "patchcore": {},
}


def write(path, tokens, foreground=None):
    with store.writing(path, "embeddings", {}) as file:
        file.create_dataset("tokens", data=tokens.astype(np.float16))
        if foreground is not None:
            file.create_dataset("foreground", data=foreground)
    return EmbeddingReader(path, grid=None)


@pytest.fixture
def content():
    """Tokens [9, 4, 5, 6] and their foreground; image 2 has none."""
    generator = np.random.default_rng(0)
    foreground = generator.random((9, 4, 5)) > 0.4
    foreground[2] = False
    return generator.normal(size=(9, 4, 5, 6)), foreground


def with_other_background(content, value):
    tokens, foreground = content
    return np.where(foreground[..., None], tokens, value), foreground


@pytest.mark.parametrize("family", sorted(name for name, kind in FAMILIES.items() if kind.FOR_OWN_SCANS))
def test_what_the_background_looks_like_changes_no_fit(family, content, tmp_path):
    options = model_options({"family": family, "background": "leave_out", "pca_dims": 4, **SMALL[family]})
    states = []
    for value in (1.0, -3.0):
        source = write(tmp_path / f"{value}.h5", *with_other_background(content, value))
        states.append(fit_state(options, source, source, seed=0, device="cpu", self_contained=True).state)
        model = model_of(options, states[-1], source, seed=0, device="cpu")
        assert np.isfinite(model.score(source.read([0]), pd.DataFrame())[options.scores[0]]).all()
    for name, found in states[0].items():
        np.testing.assert_array_equal(found, states[1][name], err_msg=name)


@pytest.mark.parametrize("entry", [{"shots": 3}, {"coreset_fraction": 0.3}, {"max_embeddings": 40}, {}])
def test_a_bank_remembers_foreground_alone(entry, content, tmp_path):
    source = write(tmp_path / "t.h5", *content)
    options = model_options({"family": "memory_bank", "background": "leave_out", **entry})
    fit_model(tmp_path / "m.h5", options, source, source, seed=0, device="cpu")
    bank = load_model(tmp_path / "m.h5", options, source, device="cpu").bank.embeddings_
    shown = source.read(range(9))[source.foreground(range(9))]
    assert (torch.cdist(bank, shown).amin(1) < 1e-3).all()
    assert entry or len(bank) == len(shown)


def test_of_images_without_foreground_the_source_knows_nothing(content, tmp_path):
    source = write(tmp_path / "t.h5", *content)
    shown = ForegroundSource(source)
    assert shown.n_images == 8
    assert torch.equal(shown.read([2, 0])[0, 0], source.read([3, 0])[torch.from_numpy(content[1][[3, 0]])])
    assert shown.count(range(8)) == content[1].sum()
    assert shown.n_patches == content[1].sum() // 8


def test_a_patch_of_another_grid_is_foreground_where_it_touches_any(tmp_path):
    foreground = np.zeros((2, 4, 4), dtype=bool)
    foreground[1, 0, 3] = True
    write(tmp_path / "t.h5", np.zeros((2, 4, 4, 3)), foreground)
    coarse = EmbeddingReader(tmp_path / "t.h5", grid=(2, 2), rows=[1])
    assert coarse.foreground([0])[0].tolist() == [[False, True], [False, False]]
    fine = EmbeddingReader(tmp_path / "t.h5", grid=(6, 6)).foreground([1, 0])
    assert fine[0].nonzero().tolist() == [[0, 4], [0, 5], [1, 4], [1, 5]]
    assert not fine[1].any()


def test_background_is_scored_just_below_the_lowest_of_its_image():
    values = np.array([[[3.0, 1.0], [2.0, 9.0]], [[5.0, 6.0], [7.0, 8.0]]], dtype=np.float32)
    shown = np.array([[[True, False], [True, False]], [[False, False], [False, False]]])
    found = lowered({"a": values}, shown)["a"]
    below = np.nextafter(np.float32(2), np.float32(0))
    assert found.dtype == np.float32
    assert found[0].tolist() == [[3, below], [2, below]]
    assert found[1].tolist() == values[1].tolist()  # nothing is shown


def test_the_scores_of_a_split_do_not_depend_on_its_shards(content, tmp_path):
    source = write(tmp_path / "t.h5", *content)
    options = model_options({"family": "eb_mixture", "components": 3})
    fit_model(tmp_path / "m.h5", options, source, source, seed=0, device="cpu")
    model, rows = load_model(tmp_path / "m.h5", options, source, device="cpu"), pd.DataFrame(index=range(9))

    def maps(images) -> Maps:
        part = EmbeddingReader(tmp_path / "t.h5", grid=None, rows=images)
        score_split(model, part, rows.iloc[images], tmp_path / "s.h5", background="leave_out")
        return store.read_maps(tmp_path / "s.h5")

    whole, parts = maps(range(9)), [maps(range(4)), maps(range(4, 9))]
    for name, values in whole.items():
        np.testing.assert_array_equal(values, np.concatenate([part[name] for part in parts]))
        shown = content[1][0]
        assert values[0][~shown].max() < values[0][shown].min()


def test_embeddings_that_do_not_know_the_background_are_refused(content, tmp_path):
    source = write(tmp_path / "t.h5", content[0])
    options = model_options({"family": "eb_mixture"})
    with pytest.raises(InputError, match=r"t\.h5 does not say what is background: remove it, and it is made anew"):
        fit_state(options, source, source, seed=0, device="cpu")
    kept = model_options({"family": "eb_mixture", "background": "keep", "components": 4})
    assert fit_state(kept, source, source, seed=0, device="cpu").state["means"].shape == (4, 6)


def test_training_images_that_show_nothing_are_refused(content, tmp_path):
    source = write(tmp_path / "t.h5", content[0], np.zeros((9, 4, 5), dtype=bool))
    with pytest.raises(InputError, match="The training images show background only"):
        fit_state(model_options({"family": "eb_mixture"}), source, source, seed=0, device="cpu")


def test_fewer_embeddings_than_components(content, tmp_path):
    source = write(tmp_path / "t.h5", *content)
    fitted = fit_state(model_options({"family": "eb_mixture"}), source, source, seed=0, device="cpu")
    assert len(fitted.state["means"]) <= content[1].sum() < 500
    assert fitted.active_components <= len(fitted.state["means"])
    assert (np.diff(fitted.history["bound"]) > -0.01).all()  # float32
    assert len(fitted.history["epoch"]) == 12
