"""Share of the lesions that are found before too many false regions occur (FROC, `metrics.lesions`)."""

import numpy as np

from dinodp.metrics.counts import Floats
from dinodp.metrics.metric import Metric
from dinodp.options.protocol import FALSE_REGIONS


def compute(false_regions: Floats, sensitivity: Floats) -> Floats:
    """Both [..., threshold, falling], false regions per scan: the sensitivity at each of `FALSE_REGIONS`, [..., limit].

    It is that at the lowest threshold before which, from the highest on, no more false regions than that occur per
    scan; 0 where the first threshold has more. Regions merge as a threshold falls, so their number may fall again: that
    part does not count.
    """
    found = [_at(limit, false_regions, sensitivity) for limit in FALSE_REGIONS]
    return np.stack(found, axis=-1)


def _at(limit: int, false_regions: Floats, sensitivity: Floats) -> Floats:
    within = np.cumprod(false_regions <= limit, axis=-1).sum(axis=-1)  # thresholds before the first with more
    last = np.maximum(within - 1, 0)[..., None]
    return np.where(within > 0, np.take_along_axis(sensitivity, last, axis=-1)[..., 0], 0.0)


METRIC = Metric("lesions", compute, "Lesions found", rank=60, decimals=1)
