"""Which mixture component each patch belongs to."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from dinodp.report.figures.anomaly_maps import draw_image
from dinodp.report.figures.data import Array, FigureData, require_mixture
from dinodp.report.figures.examples import select_examples
from dinodp.report.figures.style import new_figure, picture_axes, styled

NAME = "component_maps"
COMPONENT_COLOURS = "viridis"


@styled
def draw(data: FigureData) -> Figure:
    """Pairs of an image with its lesion's outline and its map of components; similar components, similar colours."""
    model = require_mixture(data, NAME, "means", "assignments")
    assert model.means is not None
    assert model.assignments is not None
    cases = select_examples(data)
    colours = order_by_similarity(model.means)
    components = model.assignments([case.row for case in cases])
    rows = -(-len(cases) // 2)
    figure = new_figure(24 + 43 * rows)
    axes = figure.subplots(rows, 4, squeeze=False)
    pairs = axes.reshape(-1, 2)
    for (left, right), case, patches in zip(pairs, cases, components, strict=False):
        shape = draw_image(left, data, case, contour=True)
        drawn = _draw_components(right, patches, colours, shape)
        left.set_title(case.label)
        right.set_title(f"{len(np.unique(patches))} components")
    for unused in pairs[len(cases) :].ravel():
        unused.set_axis_off()
    bar = figure.colorbar(drawn, ax=axes, location="bottom", shrink=0.6, aspect=40, pad=0.02)
    bar.ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    bar.set_label("Active component, ordered along the first principal axis of the means (lines: borders)")
    figure.suptitle(f"{data.title}: {model.name}, {len(model.means)} active components")
    return figure


def order_by_similarity(means: Array) -> Array:
    """Rank of each component along the first principal axis of the means, [K]; the sign is fixed."""
    centred = means - means.mean(axis=0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    axis = axis * np.sign(axis[np.argmax(np.abs(axis))])
    return np.argsort(np.argsort(centred @ axis, kind="stable"), kind="stable")


def _draw_components(axes: Axes, patches: Array, colours: Array, shape: tuple[int, int]) -> AxesImage:
    height, width = shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    drawn = axes.imshow(
        colours[patches] + 1,
        cmap=COMPONENT_COLOURS,
        norm=Normalize(1, max(2, len(colours))),
        interpolation="nearest",
        extent=extent,
    )
    scale = np.array([width / patches.shape[1], height / patches.shape[0]])
    axes.add_collection(LineCollection(_borders(patches) * scale - 0.5, colors="white", linewidths=0.35))
    axes.set_xlim(extent[:2])
    axes.set_ylim(extent[2:])
    picture_axes(axes)
    return drawn


def _borders(patches: Array) -> Array:
    """Segments [m, 2, (x, y)] in patch units between neighbours that belong to different components."""
    row, col = np.nonzero(patches[:, 1:] != patches[:, :-1])
    upright = np.stack([np.stack([col + 1, row], axis=-1), np.stack([col + 1, row + 1], axis=-1)], axis=1)
    row, col = np.nonzero(patches[1:] != patches[:-1])
    level = np.stack([np.stack([col, row + 1], axis=-1), np.stack([col + 1, row + 1], axis=-1)], axis=1)
    return np.concatenate([upright, level]).astype(float)
