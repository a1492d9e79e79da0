"""Largest Dice, 2 TP / (TP + FP + P), over all thresholds."""

import numpy as np

from dinodp.metrics.counts import CumulativeCounts, Floats
from dinodp.metrics.metric import Metric


def compute(counts: CumulativeCounts) -> Floats:
    """The best threshold is chosen on the test pixels themselves."""
    above = counts.true_positives + counts.false_positives
    return np.asarray(np.max(2 * counts.true_positives / (above + counts.anomalous), axis=-1))


METRIC = Metric("pixels", compute, "Dice, best threshold", rank=60)
