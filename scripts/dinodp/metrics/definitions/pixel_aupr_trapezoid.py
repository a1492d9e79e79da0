"""Area under the precision-recall curve by the trapezoidal rule (as the paper's tool does)."""

import numpy as np

from dinodp.metrics.counts import CumulativeCounts, Floats
from dinodp.metrics.metric import Metric


def compute(counts: CumulativeCounts) -> Floats:
    """From the highest threshold down."""
    return np.asarray(np.trapezoid(counts.precision(), counts.recall(), axis=-1))


METRIC = Metric("pixels", compute, "Pixel AUPR", rank=40)
