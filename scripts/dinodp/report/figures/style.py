"""Looks shared by all figures, and saving with the same bytes each time."""

import functools
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dinodp.jobs.files import replaced_file
from dinodp.report.figures.data import FigureData

MM_PER_INCH = 25.4
WIDTH_MM = 180.0
MM_PER_CHARACTER = 1.7  # mean width at 8 points
SMALL = 7  # points: the smallest text
# Okabe and Ito: distinct for readers with any common colour vision deficiency
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000",
)  # fmt: skip
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)
LINE_STYLES = ("-", "--", "-.", ":")
SCORE_LABELS = {
    "cosine": "1 − max cosine similarity",
    "log_likelihood": "Negative log-likelihood (nat)",
    "euclidean": "Euclidean distance to nearest mean",
    "mahalanobis": "Mahalanobis distance to nearest mean",
    "random": "Random score",
    "oracle": "Oracle score",
}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "figure.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "axes.formatter.useoffset": False,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
}
Draw = Callable[[FigureData], Figure]


def styled(draw: Draw) -> Draw:
    """Run a ``draw`` function under the shared style, without changing global state."""

    @functools.wraps(draw)
    def wrapper(data: FigureData) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(data)

    return wrapper


def new_figure(height_mm: float) -> Figure:
    """An empty figure, 180 mm wide."""
    figure = Figure(figsize=(WIDTH_MM / MM_PER_INCH, height_mm / MM_PER_INCH), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def sentence_figure(sentence: str) -> Figure:
    """A sentence in place of a figure that has nothing to show."""
    figure = new_figure(20)
    figure.text(0.02, 0.5, wrap(sentence, WIDTH_MM * 0.95), va="center", fontsize=8)
    return figure


def score_label(score: str) -> str:
    """Name and unit of a score, for an axis or a colour bar."""
    return SCORE_LABELS.get(score, score.replace("_", " "))


def wrap(text: str, width_mm: float) -> str:
    """Break a label of 8 points into lines that fit ``width_mm``, at spaces and after underscores."""
    lines = textwrap.wrap(text.replace("_", "_ "), max(8, int(width_mm / MM_PER_CHARACTER)))
    return "\n".join(lines).replace("_ ", "_")


def picture_axes(axes: Axes) -> None:
    """No ticks and no frame, but room for a label."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def draw_outline(axes: Axes, lesion: npt.NDArray[np.bool_]) -> None:
    """The outline of a lesion [H, W]; none where it covers nothing or everything."""
    if lesion.any() and not lesion.all():
        axes.contour(lesion.astype(float), levels=[0.5], colors=[SKY], linewidths=0.8)


def save_figure(figure: Figure, png_path: Path, pdf_path: Path) -> None:
    """Write PNG (300 dpi) and PDF under temporary names, then rename; no dates, so equal figures give equal bytes."""
    metadata: dict[str, dict[str, Any]] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    }
    for path, kind in ((Path(png_path), "png"), (Path(pdf_path), "pdf")):
        with replaced_file(path) as temporary, mpl.rc_context(STYLE):
            figure.savefig(temporary, format=kind, metadata=metadata[kind])
