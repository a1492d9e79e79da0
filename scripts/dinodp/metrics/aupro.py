"""Area under the per-region overlap curve (Bergmann et al., MVTec AD, IJCV 2021)."""

import numpy as np

from dinodp.metrics.histograms import ScoreHistograms


def aupro(histograms: ScoreHistograms, limit: float = 0.3) -> float:
    """Mean coverage of the 8-connected regions against the false positive rate up to ``limit``, by ``limit``."""
    false_positives, _, weight = histograms.cumulative()
    fpr = np.concatenate([[0.0], false_positives / false_positives[-1]])
    overlap = np.concatenate([[0.0], weight / histograms.n_regions])
    inside = fpr <= limit
    x, y = fpr[inside], overlap[inside]
    if x[-1] < limit:
        x, y = np.append(x, limit), np.append(y, np.interp(limit, fpr, overlap))
    return float(np.trapezoid(y, x) / limit)
