"""Figure of the alignment analysis: component maps of subjects at the same level, and the measures of every model."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from dinodp.evaluation.case_properties import grey
from dinodp.images import read_lesion
from dinodp.report.alignment.measures import PatchLabels
from dinodp.report.figures.component_maps import COMPONENT_COLOURS, order_by_similarity
from dinodp.report.figures.style import COLOURS, STYLE, draw_outline, new_figure, picture_axes

NOTE = (
    "0: as by chance, 1: completely; lines: 95 % interval over subjects.\n"
    "Filled: normal images; open: anomalous ones, outside lesions."
)


class Example(NamedTuple):
    """Components of a model's patches [image, row, col] and the means of its components [K, D]."""

    components: npt.NDArray[np.int64]
    means: npt.NDArray[np.float32]


def draw_alignment(
    title: str,
    chosen: pd.DataFrame,
    data: PatchLabels,
    examples: Mapping[str, Example],
    measures: pd.DataFrame,
    mask_rule: str,
) -> Figure:
    """Rows of pictures: images, then one row of component maps per model; below them the measures."""
    shown = example_images(chosen, data)
    with mpl.rc_context(STYLE):
        figure = new_figure(38 * (1 + len(examples)) + 80)
        upper, lower = (figure.add_subfigure(part) for part in _parts(figure, len(examples)))
        axes = upper.subplots(1 + len(examples), len(shown), squeeze=False)
        for column, (row, text) in enumerate(shown):
            _draw_image(axes[0, column], chosen.iloc[row], text, mask_rule)
            for line, example in enumerate(examples.values(), start=1):
                _draw_components(axes[line, column], example, [place for place, _ in shown], row, data.tissue)
        for line, (name, example) in enumerate(examples.items(), start=1):
            axes[line, 0].set_ylabel(f"{name}\n{len(example.means)} components")
        upper.suptitle(title)
        _draw_measures(lower.subplots(), measures)
    return figure


def _parts(figure: Figure, n_models: int) -> Any:
    """Room for the pictures, and below it for the measures."""
    return figure.add_gridspec(2, 1, height_ratios=[38 * (1 + n_models), 80])


def example_images(chosen: pd.DataFrame, data: PatchLabels) -> list[tuple[int, str]]:
    """Up to four images of as many subjects, as (row, text): three normal and an anomalous one, near one level.

    The first is in the middle of its subject, or of the list where no level is known.
    """
    labels = chosen["label"].to_numpy()
    normal, anomalous = (np.flatnonzero(labels == kind) for kind in ("normal", "anomalous"))
    wanted = {"normal": normal, "anomalous": anomalous}
    start = _central(normal, data)
    rows = [start]
    for kind in ("normal", "normal", "anomalous"):
        others = [int(row) for row in wanted[kind] if data.subjects[row] not in data.subjects[rows]]
        if others:
            rows.append(min(others, key=lambda row: _distance(float(data.levels[row]), float(data.levels[start]))))
    return [(row, _describe(labels[row], chosen["subject"].iloc[row] or row, float(data.levels[row]))) for row in rows]


def _describe(label: str, subject: object, level: float) -> str:
    where = f", level {level:.2f}" if np.isfinite(level) else ""
    return f"{label}\nsubject {subject}{where}"


def _central(rows: npt.NDArray[np.int64], data: PatchLabels) -> int:
    """The image in the middle of its subject, or of the list where levels are unknown."""
    known = rows[np.isfinite(data.levels[rows])]
    if not len(known):
        return int(rows[len(rows) // 2])
    return int(known[np.argmin(np.abs(data.levels[known] - 0.5))])


def _distance(level: float, other: float) -> float:
    return abs(level - other) if np.isfinite(level) and np.isfinite(other) else 1.0


def _draw_image(axes: Axes, row: Any, text: str, mask_rule: str) -> None:
    axes.imshow(grey(row["image"]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    if row["mask"]:
        draw_outline(axes, read_lesion(row["mask"], mask_rule))
    axes.set_title(text)
    picture_axes(axes)


def _draw_components(axes: Axes, example: Example, rows: list[int], row: int, tissue: npt.NDArray[np.bool_]) -> None:
    """Of the components that the pictures ``rows`` show, similar ones have similar colours; all else is left white."""
    used = np.unique(example.components[rows][tissue[rows]])
    colour = np.full(len(example.means), np.nan)
    colour[used] = order_by_similarity(example.means[used]) if len(used) > 1 else 0
    shown = np.where(tissue[row], colour[example.components[row]], np.nan)
    axes.imshow(shown, cmap=COMPONENT_COLOURS, norm=Normalize(0, max(1, len(used) - 1)), interpolation="nearest")
    picture_axes(axes)


def _draw_measures(axes: Axes, measures: pd.DataFrame) -> None:
    """One line per measure, one colour per model, the mean over seeds."""
    names = list(dict.fromkeys(measures["measure"]))
    models = list(dict.fromkeys(measures["model"]))
    kinds = list(dict.fromkeys(measures["images"]))
    means = measures.groupby(["measure", "model", "images"], sort=False)[["value", "low", "high"]].mean()
    places = {
        (model, kind): (models.index(model) * len(kinds) + kinds.index(kind) + 1) / (len(models) * len(kinds) + 1)
        for model in models
        for kind in kinds
    }
    for name, model, kind, value, low, high in means.reset_index().itertuples(index=False, name=None):
        y, colour = names.index(name) + places[model, kind], COLOURS[models.index(model) % len(COLOURS)]
        axes.plot([low, high], [y, y], color=colour, lw=1)
        filled = colour if kinds.index(kind) == 0 else "white"
        label = model if (name, kind) == (names[0], kinds[0]) else None
        axes.plot(value, y, "o", color=colour, markerfacecolor=filled, markersize=4.5, label=label)
    for line in range(1, len(names)):
        axes.axhline(line, color="#d8dee4", lw=0.6)
    axes.axvline(0, color="#9aa5b1", lw=0.8)
    axes.set_yticks(np.arange(len(names)) + 0.5, [name.capitalize() for name in names])
    axes.set_ylim(len(names), 0)
    axes.set_xlim(min(-0.02, axes.get_xlim()[0]), max(0.5, axes.get_xlim()[1]))
    axes.set_xlabel(NOTE)
    axes.legend(loc="lower right", frameon=True)
