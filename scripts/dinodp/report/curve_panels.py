"""ROC and precision-recall curves as points of a drawing (SVG) that the page scales and marks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dinodp.figures.style import COLOURS

SIDE = 200  # units of the drawing
N_POINTS = 160
DASHES = ("", "6 3", "2 3", "8 3 2 3")
PANELS = (
    ("roc", "ROC", "False positive rate", "True positive rate", "fpr", "tpr"),
    ("pr", "Precision and recall", "Recall", "Precision", "recall", "precision"),
)


def curve_panels(models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The panels of one gallery; none where no model has curves."""
    drawn = [model for model in models if "fpr" in model["curves"]]
    if not drawn:
        return []
    return [
        {
            "kind": kind,
            "title": title,
            "x": x_label,
            "y": y_label,
            "side": SIDE,
            "chance": drawn[0]["prevalence"] if kind == "pr" else None,
            "lines": [_line(model, index, x, y) for index, model in enumerate(drawn)],
        }
        for kind, title, x_label, y_label, x, y in PANELS
    ]


def _line(model: Mapping[str, Any], index: int, x: str, y: str) -> dict[str, Any]:
    return {
        "name": model["name"],
        "colour": COLOURS[index % len(COLOURS)],
        "dash": DASHES[index % len(DASHES)],
        "points": points(model["curves"][x], model["curves"][y]),
    }


def points(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> str:
    """A curve of fractions as the points of an SVG polyline; its y axis points down."""
    chosen = np.unique(np.linspace(0, len(x) - 1, N_POINTS).round().astype(int))
    return " ".join(f"{SIDE * x[i]:.1f},{SIDE * (1 - y[i]):.1f}" for i in chosen)
