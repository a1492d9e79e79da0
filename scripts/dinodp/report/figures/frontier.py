"""What accuracy costs: average precision against the vectors that a model compares with, against time and memory."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from dinodp.errors import NothingToShow
from dinodp.report.figures.data import FigureData, ModelData
from dinodp.report.figures.style import COLOURS, new_figure, styled

NAME = "frontier"
METRIC = "pixel_average_precision"
NARROW = 100  # a range of costs below this factor has labels between the powers of ten
MARKERS = "osD^vPX*"
Cost = Callable[[ModelData], float | None]
COSTS: dict[str, Cost] = {
    "Vectors (components, or remembered)": lambda model: model.vectors,
    "Scoring, no backbone (ms per image)": lambda model: model.scoring_ms,
    "Model in memory (MiB)": lambda model: model.model_mib or None,
}


@styled
def draw(data: FigureData) -> Figure:
    """A point per model, by its primary score; models of one family have one colour."""
    models = [model for model in data.models if model.family != "control" and METRIC in _metrics(model)]
    if not models:
        raise NothingToShow(f"Figure {NAME!r} needs the average precision of a model, and none has one.")
    looks = _looks([model.family for model in models])
    figure = new_figure(92)
    panels = figure.subplots(1, len(COSTS), sharey=True)
    for axes, (label, cost) in zip(panels, COSTS.items(), strict=True):
        for model, (colour, marker) in zip(models, looks, strict=True):
            x, y = cost(model), _metrics(model)[METRIC]
            axes.plot([] if x is None else [x], [] if x is None else [y], marker, color=colour, label=model.name)
        _finish(axes, label)
    panels[0].set_ylabel("Pixel average precision")
    panels[0].set_ylim(0, 1.08 * max(_metrics(model)[METRIC] for model in models))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"{data.title}: first seed")
    return figure


def _looks(families: Sequence[str]) -> list[tuple[str, str]]:
    """Colour and marker of each model: the colour by its family, the pair its own as long as there are pairs."""
    kinds, found = list(dict.fromkeys(families)), list[tuple[str, str]]()
    for index, family in enumerate(families):
        colour = COLOURS[kinds.index(family) % len(COLOURS)]
        markers = [MARKERS[(index + shift) % len(MARKERS)] for shift in range(len(MARKERS))]
        found.append((colour, next((marker for marker in markers if (colour, marker) not in found), markers[0])))
    return found


def _metrics(model: ModelData) -> dict[str, float]:
    return model.metrics.get(model.primary_score, {})


def _finish(axes: Axes, label: str) -> None:
    axes.set(xscale="log", xlabel=label)
    axes.grid(color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.margins(x=0.08)
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < NARROW * low else (1.0,)))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
