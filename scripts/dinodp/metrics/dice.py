"""Dice: the best over all thresholds, and at thresholds calibrated on normal validation images."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dinodp.errors import InputError
from dinodp.metrics.anomaly_maps import anomaly_map
from dinodp.metrics.histograms import ScoreBins, ScoreHistograms
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
    histograms = ScoreHistograms.empty(ScoreBins.of(normal_patch_maps))
    for patch_map, (height, width) in zip(normal_patch_maps, sizes, strict=True):
        pixels = anomaly_map(patch_map, (height, width), smoothing_sigma)
        histograms.update(pixels, np.zeros((height, width), dtype=bool))
    share = histograms.normal.cumsum() / histograms.normal.sum()
    quantiles = [np.searchsorted(share, 1 - rate) for rate in FALSE_POSITIVE_RATES.values()]
    edges = histograms.bins.lower_edge(np.asarray(quantiles))
    return {f"threshold_pixel_{name}": float(edge) for name, edge in zip(FALSE_POSITIVE_RATES, edges, strict=True)}


def max_dice(histograms: ScoreHistograms) -> float:
    """Largest Dice, 2 TP / (TP + FP + P), over all thresholds."""
    false_positives, true_positives, _ = histograms.cumulative()
    return float(np.max(2 * true_positives / (true_positives + false_positives + true_positives[-1])))


@dataclass
class DiceAtThresholds:
    """Pixels above fixed thresholds, counted exactly (strictly greater), map by map."""

    thresholds: dict[str, float]
    true_positives: dict[str, int] = field(default_factory=dict)
    positives: dict[str, int] = field(default_factory=dict)
    anomalous: int = 0

    def update(
        self, anomaly_map: npt.NDArray[np.float32], anomalous: npt.NDArray[np.bool_]
    ) -> tuple[list[int], list[int]]:
        """Count one map [H, W] with its anomalous pixels [H, W]; return its true positives and positives."""
        inside = anomaly_map[anomalous]
        self.anomalous += len(inside)
        positives = [int(np.count_nonzero(anomaly_map > threshold)) for threshold in self.thresholds.values()]
        true_positives = [int(np.count_nonzero(inside > threshold)) for threshold in self.thresholds.values()]
        for name, all_above, true_above in zip(self.thresholds, positives, true_positives, strict=True):
            self.positives[name] = self.positives.get(name, 0) + all_above
            self.true_positives[name] = self.true_positives.get(name, 0) + true_above
        return true_positives, positives

    def values(self) -> dict[str, float]:
        """Dice by name (``dice_fpr10``, ...)."""
        return {
            name.replace("threshold", "dice"): 2 * self.true_positives[name] / (self.positives[name] + self.anomalous)
            for name in self.thresholds
        }
