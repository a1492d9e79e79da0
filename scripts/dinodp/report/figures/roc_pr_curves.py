"""Receiver operating characteristic and precision-recall curves over all test pixels."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dinodp.errors import NothingToShow
from dinodp.report.figures.data import Array, FigureData, ModelData
from dinodp.report.figures.style import COLOURS, LINE_STYLES, new_figure, styled

NAME = "roc_pr_curves"
NEEDED = ("fpr", "tpr", "recall", "precision")
FIRST_RECALL = 0.02


@styled
def draw(data: FigureData) -> Figure:
    """Two panels; one line per model and primary score; the chance level is dotted."""
    models = [model for model in data.models if _has_curves(model)]
    if not models:
        raise NothingToShow(
            f"Figure {NAME!r} needs pixel-wise curves, and no model has any (does the test split have masks?)."
        )
    figure = new_figure(98)
    roc, precision_recall = figure.subplots(1, 2)
    for index, model in enumerate(models):
        curves = model.curves[model.primary_score]
        look = {"color": COLOURS[index % len(COLOURS)], "linestyle": LINE_STYLES[index % len(LINE_STYLES)]}
        roc.plot(curves["fpr"], curves["tpr"], label=_label(model, models), **look)
        precision_recall.plot(curves["recall"], curves["precision"], **look)
    roc.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, linestyle=":", label="Chance")
    shown = [model.curves[model.primary_score] for model in models]
    prevalence = _prevalence(shown[0])
    precision_recall.axhline(prevalence, color="0.5", linewidth=0.8, linestyle=":")
    _finish(roc, "False positive rate", "True positive rate", "ROC, all test pixels", 1.0)
    title = f"Precision-recall (dotted: prevalence {100 * prevalence:.2g} %)"
    _finish(precision_recall, "Recall", "Precision", title, max(highest_precision(curves) for curves in shown))
    figure.legend(*roc.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(data.title)
    return figure


def _has_curves(model: ModelData) -> bool:
    curves = model.curves.get(model.primary_score, {})
    return all(name in curves and len(curves[name]) for name in NEEDED)


def _label(model: ModelData, models: list[ModelData]) -> str:
    """Model, and its score where scores differ."""
    differ = len({other.primary_score for other in models if other.family != "control"}) > 1
    return (
        f"{model.name} ({model.primary_score.replace('_', ' ')})"
        if differ and model.family != "control"
        else model.name
    )


def _prevalence(curves: dict[str, Array]) -> float:
    """Share of anomalous pixels: the precision when every pixel is called anomalous."""
    recall, precision = curves["recall"], curves["precision"]
    return float(precision[recall >= recall.max()].min())


def highest_precision(curves: Mapping[str, Array]) -> float:
    """Highest precision but at the very first pixels, where it jumps to 0 or 1."""
    return float(curves["precision"][curves["recall"] >= FIRST_RECALL].max())


def _finish(axes: Axes, x: str, y: str, title: str, highest: float) -> None:
    top = min(1.0, 1.1 * highest)  # a rare lesion's precision is low everywhere: the axis ends where the curves do
    axes.set(xlabel=x, ylabel=y, title=title, xlim=(-0.01, 1.01), ylim=(-0.01 * top, 1.02 * top))
    axes.set_box_aspect(1)
    axes.grid(color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
