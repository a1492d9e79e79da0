"""Metrics of random small test sets, with ties, of one class and without a region: as scikit-learn's, or absent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as sk

from dinodp.errors import InputError
from dinodp.metrics import Bootstrap, evaluate, evaluate_stream
from dinodp.metrics.definitions import metrics_of
from dinodp.options.protocol import PAPER

PIXELS = set(metrics_of("pixels"))
FAR = st.sampled_from([0.0, 1e4, -3.0])
SCALES = st.sampled_from([1e-6, 1.0, 1e4])


@st.composite
def small_sets(draw):
    """Patch scores [n, 4, 4] with many ties, and masks of the same size."""
    n, levels = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = generator.integers(0, levels, size=(n, 4, 4)) * draw(SCALES) + draw(FAR)
    masks = (generator.random((n, 4, 4)) < draw(st.floats(0, 1))).astype(np.uint8)
    return scores.astype(np.float32), masks


@given(small_sets())
def test_pixel_metrics_are_scikit_learns_or_absent(case):
    scores, masks = case
    found = evaluate(scores, masks, scores)
    labels, values = masks.ravel() > 0, scores.ravel()
    assert all(np.isfinite(list(found.values())))
    assert found["prevalence"] == pytest.approx(labels.mean())
    if labels.all() or not labels.any():
        assert not PIXELS & set(found)
        return
    assert found["pixel_auroc"] == pytest.approx(sk.roc_auc_score(labels, values), abs=1e-9)
    assert found["pixel_average_precision"] == pytest.approx(sk.average_precision_score(labels, values), abs=1e-9)
    precision, recall, _ = sk.precision_recall_curve(labels, values)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert found["max_dice"] == pytest.approx(f1.max(), abs=1e-9)
    assert 0 <= found["aupro_30"] <= 1 + 1e-9


@given(small_sets())
def test_image_auroc_is_scikit_learns_or_absent(case):
    scores, masks = case
    labels = masks.any(axis=(1, 2))
    found = evaluate(scores, masks, scores)
    if labels.all() or not labels.any():
        assert "image_auroc" not in found
        return
    images = scores.max(axis=(1, 2))  # a hundredth of 16 patches is one of them
    assert found["image_auroc"] == pytest.approx(sk.roc_auc_score(labels, images), abs=1e-9)


@given(small_sets(), st.integers(0, 1000))
def test_the_order_of_images_and_a_rising_transformation_change_no_ranking_metric(case, seed):
    scores, masks = case
    order = np.random.default_rng(seed).permutation(len(scores))
    found, shuffled = evaluate(scores, masks, scores), evaluate(scores[order], masks[order], scores)
    assert found == pytest.approx(shuffled, abs=1e-12)
    moved = evaluate(scores * np.float32(4), masks, scores * np.float32(4))
    for name in (PIXELS | {"image_auroc"}) & set(found):
        assert found[name] == pytest.approx(moved[name], abs=1e-9), name


@given(small_sets(), st.integers(1, 3))
def test_a_bootstrap_is_finite_for_any_number_of_subjects(case, subjects):
    scores, masks = case
    names = [str(index % subjects) for index in range(len(scores))]
    labels = masks.any(axis=(1, 2))
    found = evaluate_stream(scores, masks, scores, PAPER, bootstrap=Bootstrap.of(names, labels, 20))
    assert set(found.replicates) <= set(found.values)
    for name in PIXELS & set(found.replicates):
        values = found.replicates[name]
        assert len(values) == 20
        assert np.nanmin(values) >= 0  # NaN where a resample has one class of pixels: then there is no interval
        assert np.nanmax(values) <= 1 + 1e-9


BROKEN = arrays.arrays(np.float32, (2, 3, 3), elements=st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf]))


@given(BROKEN)
def test_scores_that_are_not_finite_are_refused(scores):
    masks = np.zeros((2, 3, 3), dtype=np.uint8)
    if np.isfinite(scores).all():
        assert "threshold_fpr10" in evaluate(scores, masks, scores)
        return
    for test, valid in ((scores, np.zeros_like(scores)), (np.zeros_like(scores), scores)):
        with pytest.raises(InputError, match="finite"):
            evaluate(test, masks, valid)


@pytest.mark.parametrize("labels", [[True, True], [False, False]])
def test_image_metrics_of_one_class_are_absent_and_image_scores_must_be_finite(labels):
    zeros = np.zeros((2, 3, 3), dtype=np.float32)
    assert "image_auroc" not in evaluate(zeros, None, zeros, image_labels=labels)
    with pytest.raises(InputError, match="finite"):
        evaluate(np.full_like(zeros, np.nan), None, zeros, image_labels=[True, False])
