"""Curves hold, at each of their thresholds, the rates of the pixels above it."""

import numpy as np
import pytest

from dinodp.metrics.curves import curves
from dinodp.metrics.histograms import ScoreBins, ScoreHistograms


@pytest.fixture(scope="module")
def counted():
    """Scores, mask and histograms of one map; every tenth score is the same."""
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(60, 60)).astype(np.float32)
    mask = generator.random((60, 60)) < 0.1
    scores += mask
    scores[::10] = 0.5
    histograms = ScoreHistograms.empty(ScoreBins.of(scores))
    histograms.update(scores, mask)
    return scores, mask, histograms


@pytest.mark.parametrize("n_points", [20, 10_000])
def test_each_point_has_the_rates_of_the_pixels_above_its_threshold(counted, n_points):
    scores, mask, histograms = counted
    found = curves(histograms, n_points)
    bins = histograms.bins.index(scores)
    next_bins = histograms.bins.index(found["threshold"].astype(np.float32)) + 1  # the highest that does not count
    for point, last in list(enumerate(next_bins))[:-1]:
        above = bins > last
        assert found["fpr"][point] == pytest.approx(np.mean(above[~mask]), abs=1e-6)
        assert found["recall"][point] == found["tpr"][point] == pytest.approx(np.mean(above[mask]), abs=1e-6)
        assert found["precision"][point] == pytest.approx(np.mean(mask[above]) if above.any() else 1, abs=1e-6)


def test_curves_begin_at_no_pixel_and_end_below_all(counted):
    _scores, mask, histograms = counted
    found = curves(histograms, 20)
    assert (found["fpr"][0], found["tpr"][0], found["precision"][0]) == (0, 0, 1)
    assert (found["fpr"][-1], found["tpr"][-1]) == (1, 1)
    assert found["precision"][-1] == pytest.approx(mask.mean())
    assert found["threshold"][-1] == histograms.bins.lower_edge(np.array(-1.25))
    assert (np.diff(found["threshold"]) < 0).all()


def test_a_jump_keeps_both_its_ends(counted):
    """A tenth of the pixels has one score: with few points as well, the curve steps over it at once."""
    *_, histograms = counted
    step = np.diff(curves(histograms, 20)["fpr"]).max()
    assert step == pytest.approx(np.max(histograms.normal) / histograms.normal.sum(), abs=1e-6)
