"""Images, lesions and the anomaly map of each model, for a few cases."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from dinodp.images import read_lesion
from dinodp.report.figures.data import FigureData, ModelData, require_models
from dinodp.report.figures.examples import ExampleImage, read_grey_image, resize_map, select_examples
from dinodp.report.figures.style import SMALL, draw_outline, new_figure, picture_axes, score_label, styled, wrap

NAME = "anomaly_maps"
MAP_COLOURS = "magma"


@styled
def draw(data: FigureData) -> Figure:
    """Rows: largest, median and smallest lesion, a normal image; columns: image, with contour, one map per model."""
    models = require_models(data, NAME)
    cases = select_examples(data)
    outlined = any(data.manifest["mask"].iloc[case.row] for case in cases)
    pictures = ("Image", "Lesion outline") if outlined else ("Image",)
    columns = len(pictures) + len(models)
    figure = new_figure(20 + len(cases) * min(40.0, 165.0 / columns))
    axes = figure.subplots(len(cases), columns, squeeze=False)
    figure.suptitle(data.title)
    for row, case in zip(axes, cases, strict=True):
        for index, place in enumerate(row[: len(pictures)]):
            shape = draw_image(place, data, case, contour=index > 0)
        for place, model in zip(row[len(pictures) :], models, strict=True):
            drawn = _draw_map(place, model, case, shape)
            if case is cases[-1]:
                _colour_bar(
                    figure,
                    list(axes[:, list(row).index(place)]),
                    drawn,
                    wrap(score_label(model.primary_score), 165.0 / columns),
                )
        row[0].set_ylabel(case.label if columns <= 5 else wrap(case.label, 165.0 / columns), fontsize=SMALL)
    for place, name in zip(axes[0], (*pictures, *(model.name for model in models)), strict=True):
        place.set_title(wrap(name, 165.0 / columns))
    return figure


def draw_image(axes: Axes, data: FigureData, case: ExampleImage, contour: bool = False) -> tuple[int, int]:
    """Show an image in grey, with the outline of its mask if asked. Returns (height, width)."""
    manifest_row = data.manifest.iloc[case.row]
    image = read_grey_image(manifest_row["image"])
    low, high = (0, 255) if image.dtype == np.uint8 else (None, None)
    axes.imshow(image, cmap="gray", interpolation="nearest", vmin=low, vmax=high)
    if contour and isinstance(manifest_row["mask"], str) and manifest_row["mask"]:
        draw_outline(axes, read_lesion(manifest_row["mask"], data.mask_rule))
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


def _colour_bar(figure: Figure, column: list[Axes], drawn: AxesImage, label: str) -> None:
    bar = figure.colorbar(drawn, ax=column, location="bottom", extend="both", shrink=0.9, pad=0.015, aspect=18)
    bar.set_label(label, fontsize=SMALL)
    bar.ax.locator_params(nbins=2)
