"""ROC and precision-recall curves, thinned for drawing."""

import numpy as np
import numpy.typing as npt

from dinodp.metrics.counts import Floats
from dinodp.metrics.histograms import ScoreHistograms


def curves(histograms: ScoreHistograms, n_points: int = 1000) -> dict[str, npt.NDArray[np.floating]]:
    """ROC and precision-recall curves thinned to a few times ``n_points``, from no pixel to all of them.

    One point is one threshold: point i of ``fpr``, ``tpr``, ``recall`` (the same as ``tpr``) and ``precision`` belongs
    to the pixels at least 1.25 bins above ``threshold`` i: the bin that begins a quarter above it does not count, and
    so no score that is equal to it. The points step evenly along the ROC curve, along recall and in the
    logarithm of the number of pixels above; a jump, of many pixels with one score, keeps both its ends.
    """
    counts = histograms.cumulative()
    fpr, tpr = counts.fpr(), counts.recall()
    above = np.log(np.concatenate([[1.0], counts.false_positives + counts.true_positives]))
    index = np.unique(np.concatenate([_spaced(length, n_points) for length in (fpr + tpr, tpr, above)]))
    columns = {"fpr": fpr, "tpr": tpr, "recall": tpr, "precision": counts.precision()}
    threshold = _strict_thresholds(histograms)[index]
    return {**{name: values[index].astype(np.float32) for name, values in columns.items()}, "threshold": threshold}


def _strict_thresholds(histograms: ScoreHistograms) -> Floats:
    """Of each point of the curves, a score that its pixels exceed by more than a bin, falling.

    A quarter of a bin below the next bin that has a pixel, which is not among them: read between the points, the curve
    has at each score its value without the pixels of that score, of which one on an edge may round to either side.
    """
    occupied = histograms.occupied()
    return histograms.bins.lower_edge(np.concatenate([occupied, [occupied[-1] - 1]]) - 0.25)


def _spaced(length: Floats, n_points: int) -> npt.NDArray[np.int64]:
    """Indices that step evenly along ``length``, which rises; of a longer step the index before it as well."""
    targets = np.linspace(length[0], length[-1], n_points)
    index = np.searchsorted(length, targets).clip(0, len(length) - 1)
    jumps = np.flatnonzero(np.diff(length) > targets[1] - targets[0])
    return np.unique(np.concatenate([[0], index, jumps, [len(length) - 1]]))
