"""Dice: the best over all thresholds, and at thresholds calibrated on normal validation images."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dinodp.errors import InputError
from dinodp.metrics.histograms import ScoreHistograms

FALSE_POSITIVE_RATES = {"fpr10": 0.10, "fpr05": 0.05, "fpr01": 0.01}


def calibrated_thresholds(normal_patch_maps: npt.NDArray[np.float32]) -> dict[str, float]:
    """Thresholds that 10, 5 and 1 % of the normal validation patches [n, row, col] exceed, by name.

    Raises InputError when there is no normal validation patch or a score is not finite.
    """
    values = np.asarray(normal_patch_maps, dtype=np.float64).ravel()
    if not len(values) or not np.isfinite(values).all():
        raise InputError("Thresholds need finite patch scores of at least one normal validation image.")
    return {f"threshold_{name}": float(np.quantile(values, 1 - rate)) for name, rate in FALSE_POSITIVE_RATES.items()}


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
