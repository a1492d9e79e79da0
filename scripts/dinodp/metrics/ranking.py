"""Threshold-free pixel metrics: AUROC, average precision, trapezoidal AUPR; and the curves behind them."""

import numpy as np
import numpy.typing as npt

from dinodp.metrics.histograms import Floats, ScoreHistograms


def roc_curve(histograms: ScoreHistograms) -> tuple[Floats, Floats]:
    """False and true positive rate from (0, 0) to (1, 1)."""
    false_positives, true_positives, _ = histograms.cumulative()
    fpr, tpr = false_positives / false_positives[-1], true_positives / true_positives[-1]
    return np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr])


def precision_recall_curve(histograms: ScoreHistograms) -> tuple[Floats, Floats]:
    """Precision and recall from the highest threshold down; begins with (1, 0), as scikit-learn's curve ends."""
    false_positives, true_positives, _ = histograms.cumulative()
    precision = true_positives / (true_positives + false_positives)
    recall = true_positives / true_positives[-1]
    return np.concatenate([[1.0], precision]), np.concatenate([[0.0], recall])


def pixel_auroc(histograms: ScoreHistograms) -> float:
    """Area under the ROC curve; ties count one half."""
    fpr, tpr = roc_curve(histograms)
    return float(np.trapezoid(tpr, fpr))


def pixel_average_precision(histograms: ScoreHistograms) -> float:
    """Sum over thresholds of (R_i - R_{i-1}) P_i."""
    precision, recall = precision_recall_curve(histograms)
    return float(np.sum(np.diff(recall) * precision[1:]))


def pixel_aupr_trapezoid(histograms: ScoreHistograms) -> float:
    """Area under the precision-recall curve by the trapezoidal rule (the paper's tool; a little optimistic)."""
    precision, recall = precision_recall_curve(histograms)
    return float(np.trapezoid(precision, recall))


def curves(histograms: ScoreHistograms, n_points: int = 1000) -> dict[str, npt.NDArray[np.floating]]:
    """ROC and precision-recall curves thinned to a few times ``n_points``, from no pixel to all of them.

    One point is one threshold: point i of ``fpr``, ``tpr``, ``recall`` (the same as ``tpr``) and ``precision`` belongs
    to the pixels at least 1.25 bins above ``threshold`` i: the bin that begins a quarter above it does not count, and
    so no score that is equal to it. The points step evenly along the ROC curve, along recall and in the
    logarithm of the number of pixels above; a jump, of many pixels with one score, keeps both its ends.
    """
    false_positives, true_positives, _ = histograms.cumulative()
    fpr, tpr = roc_curve(histograms)
    precision, _ = precision_recall_curve(histograms)
    above = np.log(np.concatenate([[1.0], np.maximum(false_positives + true_positives, 1)]))
    index = np.unique(np.concatenate([_spaced(length, n_points) for length in (fpr + tpr, tpr, above)]))
    columns = {"fpr": fpr, "tpr": tpr, "recall": tpr, "precision": precision}
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
