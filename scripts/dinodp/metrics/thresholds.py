"""Thresholds calibrated on normal validation images, and the pixels above them."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dinodp.errors import InputError
from dinodp.metrics.anomaly_maps import anomaly_map
from dinodp.metrics.counts import CountsAbove, Floats
from dinodp.metrics.histograms import N_BINS, ScoreBins
from dinodp.options.protocol import FALSE_POSITIVE_RATES


def calibrated_thresholds(normal_patch_maps: npt.NDArray[np.float32]) -> dict[str, float]:
    """Thresholds that 10, 5 and 1 % of the normal validation patches [n, row, col] exceed, by name.

    Raises InputError when there is no normal validation patch or a score is not finite.
    """
    values = np.asarray(normal_patch_maps, dtype=np.float64).ravel()
    if not len(values) or not np.isfinite(values).all():
        raise InputError("Thresholds need finite patch scores of at least one normal validation image.")
    return {f"threshold_{name}": float(np.quantile(values, 1 - rate)) for name, rate in FALSE_POSITIVE_RATES.items()}


def full_resolution_thresholds(
    normal_patch_maps: npt.NDArray[np.float32], sizes: Sequence[tuple[int, int]], smoothing_sigma: float = 0.0
) -> dict[str, float]:
    """Thresholds as `calibrated_thresholds` gives, but of the anomaly maps at ``sizes`` (height, width of each image).

    The quantiles are those of a fine histogram, so that no map is kept. Names: ``threshold_pixel_fpr10``, ...
    Raises InputError for other than one size per map.
    """
    if len(sizes) != len(normal_patch_maps):
        raise InputError(f"There are {len(normal_patch_maps)} validation maps, but {len(sizes)} sizes.")
    maps = (
        anomaly_map(patch_map, (height, width), smoothing_sigma)
        for patch_map, (height, width) in zip(normal_patch_maps, sizes, strict=True)
    )
    found = thresholds_of(maps, ScoreBins.of(normal_patch_maps))
    return {f"threshold_pixel_{rate}": value for rate, value in found.items()}


def thresholds_of(parts: Iterable[npt.NDArray[np.float32]], bins: ScoreBins) -> dict[str, float]:
    """Thresholds that 10, 5 and 1 % of all scores of the ``parts`` (any shape) exceed, by rate, from a fine histogram.

    Raises InputError where there is no score.
    """
    counts = np.zeros(N_BINS)
    for scores in parts:
        counts += np.bincount(bins.index(scores).ravel(), minlength=N_BINS)
    if not counts.any():
        raise InputError("Thresholds need at least one score of a healthy image.")
    share = counts.cumsum() / counts.sum()
    quantiles = [np.searchsorted(share, 1 - rate) for rate in FALSE_POSITIVE_RATES.values()]
    edges = bins.lower_edge(np.asarray(quantiles))
    return {rate: float(edge) for rate, edge in zip(FALSE_POSITIVE_RATES, edges, strict=True)}


class ThresholdCounts:
    """Pixels above fixed thresholds, counted exactly, map by map, apart for each subject."""

    def __init__(self, thresholds: Mapping[str, float], n_subjects: int) -> None:
        self.names = list(thresholds)
        self.thresholds = [float(value) for value in thresholds.values()]
        self.true_positives, self.positives = np.zeros((2, n_subjects, len(thresholds)))
        self.anomalous = np.zeros((n_subjects, 1))

    def update(
        self, subject: int, scores: npt.NDArray[np.float32], anomalous: npt.NDArray[np.bool_],
        counted: npt.NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        """Count one map [H, W] with its ``anomalous`` pixels; of the others those that are ``counted`` (None: all)."""
        inside = scores[anomalous]
        pixels = scores if counted is None else scores[counted | anomalous]
        self.anomalous[subject] += len(inside)
        self.positives[subject] += [np.count_nonzero(pixels > threshold) for threshold in self.thresholds]
        self.true_positives[subject] += [np.count_nonzero(inside > threshold) for threshold in self.thresholds]

    def weighted(self, weights: Floats) -> CountsAbove:
        """Counts of the subjects, each taken ``weights`` [..., subject] times."""
        return CountsAbove(weights @ self.true_positives, weights @ self.positives, weights @ self.anomalous)
