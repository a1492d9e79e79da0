"""Area under the per-region overlap curve up to a false positive rate of 0.3 (Bergmann et al., MVTec AD, IJCV 2021)."""

import numpy as np

from dinodp.metrics.counts import CumulativeCounts, Floats
from dinodp.metrics.metric import Metric

LIMIT = 0.3


def compute(counts: CumulativeCounts) -> Floats:
    """Mean coverage of the 8-connected regions against the false positive rate up to the limit, by the limit."""
    fpr, coverage = counts.fpr(), counts.coverage()
    pairs = zip(np.atleast_2d(fpr), np.atleast_2d(coverage), strict=True)
    return np.array([_area(*pair) for pair in pairs]).reshape(fpr.shape[:-1])


def _area(fpr: Floats, coverage: Floats) -> float:
    inside = fpr <= LIMIT
    x = np.append(fpr[inside], LIMIT)
    y = np.append(coverage[inside], np.interp(LIMIT, fpr, coverage))
    return float(np.trapezoid(y, x) / LIMIT)


METRIC = Metric("pixels", compute, "AUPRO, FPR ≤ 30 %", rank=50)
