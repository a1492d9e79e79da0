"""Counts of a resample that has no such pixel."""

import warnings

import numpy as np

from dinodp.metrics.counts import CumulativeCounts


def test_a_resample_without_pixels_of_a_kind_has_no_rate_and_no_warning():
    rising, none = np.array([1.0, 3.0]), np.zeros(2)
    counts = CumulativeCounts(
        false_positives=np.stack([rising, none]),
        true_positives=np.stack([none, rising]),
        region_weight=np.stack([none, rising / 3]),
        n_regions=np.array([0.0, 1.0]),
        tied=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fpr, recall, coverage = counts.fpr(), counts.recall(), counts.coverage()
    np.testing.assert_allclose(fpr, [[0, 1 / 3, 1], [0, np.nan, np.nan]])
    np.testing.assert_allclose(recall, [[0, np.nan, np.nan], [0, 1 / 3, 1]])
    np.testing.assert_allclose(coverage, [[0, np.nan, np.nan], [0, 1 / 3, 1]])
