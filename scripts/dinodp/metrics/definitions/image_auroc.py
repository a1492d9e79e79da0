"""Area under the ROC curve of the image scores; ties count one half."""

import numpy as np
import numpy.typing as npt

from dinodp.metrics.counts import Floats
from dinodp.metrics.metric import Metric


def compute(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """Scores and labels [n] of images that occur ``weights`` [..., n] times; NaN where a class does not occur."""
    order = np.argsort(scores, kind="stable")
    scores, labels, weights = scores[order], labels[order], weights[..., order]
    positive, negative = weights * labels, weights * ~labels
    below = np.cumsum(negative, axis=-1) - negative
    first = np.searchsorted(scores, scores, side="left")
    last = np.searchsorted(scores, scores, side="right") - 1
    lower = below[..., first]
    tied = below[..., last] + negative[..., last] - lower
    wins = np.sum(positive * (lower + tied / 2), axis=-1)
    auroc: Floats = wins / (positive.sum(axis=-1) * negative.sum(axis=-1))
    return auroc


METRIC = Metric("images", compute, "Image AUROC", rank=10, tolerance=0.01)
