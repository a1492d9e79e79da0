"""Without validation images: a share of the training subjects chooses the shrinkage, and then all are fitted."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from dinodp.families import FAMILIES, model_options
from dinodp.families.features import Features, chunks
from dinodp.families.foreground import ForegroundSource
from dinodp.families.holding_out import Part, held_out
from dinodp.families.stages import fit_state, model_of
from dinodp.models.full_passes import HELD_OUT_NU
from dinodp.scans.detecting.scoring import NoEmbeddings

HOLDING_OUT = sorted(name for name, family in FAMILIES.items() if family.HOLDS_OUT)
SMALL = {"components": 4, "epochs": 3, "background": "keep"}


class Images:
    """Images of 4 x 5 patches, 6 numbers each, about three directions; `subjects` where they are known."""

    n_patches, dim = 20, 6

    def __init__(self, n_images, subjects=None, wide=()):
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(3, 6, generator=generator)
        labels = torch.randint(3, (n_images, 4, 5), generator=generator)
        noise = torch.full((n_images, 1, 1, 1), 0.05)
        noise[list(wide)] = 0.5
        tokens = centres[labels] + noise * torch.randn(n_images, 4, 5, 6, generator=generator)
        self.tokens, self.n_images = functional.normalize(tokens, dim=3), n_images
        if subjects is not None:
            self.subjects = subjects

    def read(self, indices):
        return self.tokens[list(indices)]

    def count(self, images):
        return 20 * len(images)

    def foreground(self, indices):
        return torch.ones(len(list(indices)), 4, 5, dtype=torch.bool)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images_of(source, part):
    """Which images of the source a part has."""
    return [int((source.tokens == image).flatten(1).all(1).nonzero()) for image in part.read(range(part.n_images))]


@pytest.mark.parametrize("seed", range(5))
def test_whole_subjects_are_held_out(seed):
    source = Images(30, [f"s{index // 3}" for index in range(30)])
    others, held = (images_of(source, part) for part in held_out(source, seeded(seed)))
    assert sorted(others + held) == list(range(30))
    assert len(held) == 6
    assert {source.subjects[index] for index in held}.isdisjoint(source.subjects[index] for index in others)
    assert images_of(source, held_out(source, seeded(seed))[1]) == held


def test_of_one_subject_images_that_follow_each_other():
    source = Images(20, ["s"] * 20)
    _, held = (images_of(source, part) for part in held_out(source, seeded()))
    assert held == list(range(held[0], held[0] + 4))


@pytest.mark.parametrize(("n", "expected"), [(1, 0), (2, 1), (3, 1), (10, 2)])
def test_at_least_one_image_is_held_out_but_not_all(n, expected):
    others, held = held_out(Images(n), seeded())
    assert (others.n_images, held.n_images) == (n - expected, expected)


def test_a_part_is_read_as_its_source():
    source = Images(9)
    part = Part(source, [7, 2])
    assert torch.equal(torch.cat([*chunks(part)]), source.read([7, 2]).flatten(0, 2))
    assert (part.count([0, 1]), part.n_patches, part.dim) == (40, 20, 6)


def test_foreground_and_features_keep_whose_an_image_is():
    source = Images(4, ["a", "a", "b", "c"])
    source.foreground = lambda indices: torch.tensor([index != 1 for index in indices])[:, None, None].expand(-1, 4, 5)
    assert ForegroundSource(source).subjects == ["a", "b", "c"]
    features = Features(model_options({"family": "vmf", "position": "appended"}))
    assert ForegroundSource(features.of(source)).subjects == ["a", "b", "c"]


@pytest.mark.parametrize("family", HOLDING_OUT)
def test_without_validation_images_all_are_fitted_and_a_subject_chooses(family):
    """The subject that differs widens the spread where it is held out; means are those of a fit to all images."""
    source = Images(12, ["a"] * 6 + ["b"] * 6, wide=range(6, 12))
    options = model_options({"family": family, **SMALL})
    spread = []
    for seed in range(6):
        state = fit_state(options, source, NoEmbeddings(), seed=seed, device="cpu", self_contained=True).state
        with_validation = fit_state(options, source, source, seed=seed, device="cpu").state
        np.testing.assert_array_equal(state["means"], with_validation["means"])
        assert float(state["nu"]) in HELD_OUT_NU
        held = images_of(source, held_out(source, _after_a_fit(options, source, seed))[1])
        spread.append((held[0] >= 6, float(state["inflation"])))
        model = model_of(options, state, NoEmbeddings(), seed=seed, device="cpu")
        assert np.isfinite(model.score(source.read([0]), pd.DataFrame())[options.scores[0]]).all()
    wide, narrow = ([value for is_wide, value in spread if is_wide == kind] for kind in (True, False))
    assert min(wide) > max(narrow)


def _after_a_fit(options, source, seed):
    """The random generator as a fit leaves it."""
    generator = seeded(seed)
    options.build("cpu").fit(lambda: chunks(source), generator)
    return generator


@pytest.mark.parametrize("family", HOLDING_OUT)
def test_of_a_single_image_the_priors_own_strength_stays(family):
    options = model_options({"family": family, **SMALL})
    state = fit_state(options, Images(1), NoEmbeddings(), seed=0, device="cpu").state
    assert float(state["inflation"]) == 1
    assert np.isfinite(state["means"]).all()


def test_the_families_that_hold_out():
    assert HOLDING_OUT == ["eb_mixture", "vmf"]
