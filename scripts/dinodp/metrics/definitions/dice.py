"""Dice at thresholds that are calibrated on normal validation images."""

from dinodp.metrics.counts import CountsAbove, Floats
from dinodp.metrics.metric import Metric


def compute(counts: CountsAbove) -> Floats:
    """2 TP / (pixels above + anomalous pixels) at each threshold."""
    return 2 * counts.true_positives / (counts.positives + counts.anomalous)


METRIC = Metric("thresholds", compute, "Dice", rank=70)
