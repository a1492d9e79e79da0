"""Average precision of all test pixels: the mean over anomalous pixels of the precision there."""

from dinodp.metrics.counts import CumulativeCounts, Floats
from dinodp.metrics.metric import Metric


def compute(counts: CumulativeCounts) -> Floats:
    """Sum over thresholds of (R_i - R_{i-1}) P_i."""
    return counts.mean_over_anomalous(counts.precision_of_bins())


METRIC = Metric("pixels", compute, "Pixel AP", rank=30)
