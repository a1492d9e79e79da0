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


def curves(histograms: ScoreHistograms, n_points: int = 1000) -> dict[str, npt.NDArray[np.float32]]:
    """ROC and precision-recall curves thinned to about ``n_points`` each, for drawing.

    ``threshold`` belongs to ``recall`` and ``precision``: pixels at or above it are positive.
    """
    fpr, tpr = roc_curve(histograms)
    precision, recall = precision_recall_curve(histograms)
    edges = histograms.bins.lower_edge(histograms.occupied())
    threshold = np.concatenate([edges[:1], edges])
    roc, pr = _spaced(fpr, tpr, n_points), _spaced(recall, recall, n_points)
    parts = {"fpr": fpr[roc], "tpr": tpr[roc], "recall": recall[pr], "precision": precision[pr]}
    parts["threshold"] = threshold[pr]
    return {name: values.astype(np.float32) for name, values in parts.items()}


def _spaced(x: Floats, y: Floats, n_points: int) -> npt.NDArray[np.int64]:
    """Indices that step evenly along a rising curve."""
    length = x + y
    targets = np.linspace(0, length[-1], n_points)
    index = np.searchsorted(length, targets).clip(0, len(length) - 1)
    return np.unique(np.concatenate([[0], index, [len(length) - 1]]))
