"""Images, lesions and the anomaly map of each model, for a few cases."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from dinodp.report.figures.data import FigureData, ModelData, lesions_of, require_models
from dinodp.report.figures.examples import ExampleImage, read_grey_image, resize_map, select_examples
from dinodp.report.figures.style import SMALL, draw_outline, new_figure, picture_axes, score_label, styled, wrap

NAME = "anomaly_maps"
MAP_COLOURS = "magma"
BESIDE = 5  # panels, or models, that are legible in the width of a page
HEIGHT_MM = 230.0  # of the panels below each other: a page


@styled
def draw(data: FigureData) -> Figure:
    """Largest, median and smallest lesion and a normal image: the image, with contour, and one map per model.

    A row per case; with more than `BESIDE` models, whose maps would be too small, a column per case.
    """
    models = require_models(data, NAME)
    cases = select_examples(data)
    outlined = any(lesions_of(data.manifest.iloc[case.row], data.mask_rule)[0].any() for case in cases)
    pictures = ("Image", "Lesion outline") if outlined else ("Image",)
    below = len(models) > BESIDE
    n_panels = len(pictures) + len(models)
    side = HEIGHT_MM / n_panels if below else min(40.0, 165.0 / n_panels)
    figure = new_figure(20 + side * (n_panels if below else len(cases)))
    axes = figure.subplots(*((n_panels, len(cases)) if below else (len(cases), n_panels)), squeeze=False)
    figure.suptitle(data.title)
    grid = axes.T if below else axes  # [case, panel]
    for row, case in zip(grid, cases, strict=True):
        for index, place in enumerate(row[: len(pictures)]):
            shape = draw_image(place, data, case, contour=index > 0)
        places = row[len(pictures) :]
        drawn = [_draw_map(place, model, case, shape) for place, model in zip(places, models, strict=True)]
    for places, model, last in zip(grid.T[len(pictures) :], models, drawn, strict=True):
        label = wrap(score_label(model.primary_score), 42.0 if below else 165.0 / n_panels)
        _colour_bar(figure, list(places), last, label, "right" if below else "bottom")
    _name(grid, cases, (*pictures, *(model.name for model in models)), below)
    return figure


def _name(grid: npt.NDArray[Any], cases: Sequence[ExampleImage], names: Sequence[str], below: bool) -> None:
    """Titles above and labels beside the panels [case, panel]."""
    width = 165.0 / len(names)
    if below:
        for place in grid.flat:
            place.set_anchor("W")  # pictures have no colour bar, but the places of the maps
        for place, case in zip(grid[:, 0], cases, strict=True):
            place.set_title(wrap(case.label, 30.0), fontsize=SMALL)
        for place, name in zip(grid[0], names, strict=True):
            place.set_ylabel(wrap(name, 42.0), fontsize=SMALL, rotation=0, ha="right", va="center")
        return
    for row, case in zip(grid, cases, strict=True):
        row[0].set_ylabel(case.label if len(names) <= BESIDE else wrap(case.label, width), fontsize=SMALL)
    for place, name in zip(grid[0], names, strict=True):
        place.set_title(wrap(name, width))


def draw_image(axes: Axes, data: FigureData, case: ExampleImage, contour: bool = False) -> tuple[int, int]:
    """Show an image in grey, with the outline of its lesions if asked. Returns (height, width)."""
    manifest_row = data.manifest.iloc[case.row]
    image = read_grey_image(manifest_row["image"])
    low, high = (0, 255) if image.dtype == np.uint8 else (None, None)
    axes.imshow(image, cmap="gray", interpolation="nearest", vmin=low, vmax=high)
    if contour:
        draw_outline(axes, lesions_of(manifest_row, data.mask_rule)[0])
    picture_axes(axes)
    return int(image.shape[0]), int(image.shape[1])


def _draw_map(axes: Axes, model: ModelData, case: ExampleImage, shape: tuple[int, int]) -> AxesImage:
    low, high = _limits(model)
    values = resize_map(model.scores[model.primary_score][case.row], shape)
    picture_axes(axes)
    return axes.imshow(values, cmap=MAP_COLOURS, vmin=low, vmax=high, interpolation="nearest")


def _limits(model: ModelData) -> tuple[float, float]:
    """Shared by all images of a model: 1st to 99.9th percentile of its test scores."""
    low, high = np.nanpercentile(model.scores[model.primary_score], (1, 99.9))
    return float(low), float(high if high > low else low + 1)


def _colour_bar(figure: Figure, column: list[Axes], drawn: AxesImage, label: str, side: str) -> None:
    bar = figure.colorbar(
        drawn, ax=column, location=side, extend="both", shrink=0.9, pad=0.015, aspect=18 if side == "bottom" else 8
    )
    bar.set_label(label, fontsize=SMALL, rotation=0, **({} if side == "bottom" else {"ha": "left", "va": "center"}))
    bar.ax.locator_params(nbins=2)
