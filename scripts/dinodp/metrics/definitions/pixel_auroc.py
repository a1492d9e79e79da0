"""Area under the ROC curve of all test pixels; ties count one half."""

import numpy as np

from dinodp.metrics.counts import CumulativeCounts, Floats
from dinodp.metrics.metric import Metric


def compute(counts: CumulativeCounts) -> Floats:
    """The trapezoidal rule is exact here."""
    return np.asarray(np.trapezoid(counts.recall(), counts.fpr(), axis=-1))


METRIC = Metric("pixels", compute, "Pixel AUROC", rank=20, tolerance=0.01)
