"""ROC and precision-recall curves as points of a drawing (SVG) that the page scales and marks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dinodp.report.figures.roc_pr_curves import highest_precision
from dinodp.report.figures.style import COLOURS

SIDE = 200  # units of the drawing
N_POINTS = 160
DASHES = ("", "6 3", "2 3", "8 3 2 3")
PANELS = (
    ("roc", "ROC", "False positive rate", "True positive rate", "fpr", "tpr"),
    ("pr", "Precision and recall", "Recall", "Precision", "recall", "precision"),
)


def curve_panels(models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The panels of one gallery; none where no model has curves.

    ``top``: the value at the upper end of the vertical axis.
    """
    drawn = [model for model in models if "fpr" in model["curves"]]
    if not drawn:
        return []
    tops = {"roc": 1.0, "pr": axis_end(max(highest_precision(model["curves"]) for model in drawn))}
    return [
        {
            "kind": kind,
            "top": tops[kind],
            "title": title,
            "x": x_label,
            "y": y_label,
            "side": SIDE,
            "chance": drawn[0]["prevalence"] if kind == "pr" else None,
            "lines": [_line(model, index, x, y, tops[kind]) for index, model in enumerate(drawn)],
        }
        for kind, title, x_label, y_label, x, y in PANELS
    ]


def _line(model: Mapping[str, Any], index: int, x: str, y: str, top: float) -> dict[str, Any]:
    return {
        "name": model["name"],
        "colour": COLOURS[index % len(COLOURS)],
        "dash": DASHES[index % len(DASHES)],
        "points": points(model["curves"][x], model["curves"][y] / top),
    }


def axis_end(highest: float) -> float:
    """The next of 1, 0.5, 0.2, 0.1, 0.05, ... above: of rare lesions the precision is low everywhere."""
    ends = (float(f"{step}e{power}") for power in range(-6, 1) for step in (1, 2, 5))
    return min(1.0, next(end for end in ends if end >= highest or end >= 1))


def points(x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> str:
    """A curve of fractions as the points of an SVG polyline; its y axis points down, and what exceeds 1 is cut.

    The points are chosen evenly along the curve as it is drawn.
    """
    x, y = np.asarray(x, dtype=np.float64), np.minimum(y, 1).astype(np.float64)
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    chosen = np.unique(np.searchsorted(length, np.linspace(0, length[-1], N_POINTS)).clip(0, len(x) - 1))
    return " ".join(f"{SIDE * x[i]:.1f},{SIDE * (1 - y[i]):.1f}" for i in chosen)
