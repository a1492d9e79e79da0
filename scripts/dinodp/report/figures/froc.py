"""Free-response ROC: lesions found against false regions per image (`metrics.lesions`)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from dinodp.errors import NothingToShow
from dinodp.metrics.anomaly_maps import anomaly_map
from dinodp.metrics.definitions import names_of
from dinodp.metrics.lesions import LesionCounter, region_thresholds
from dinodp.options.protocol import FALSE_REGIONS
from dinodp.report.figures.data import FigureData, Lesions, ModelData, lesions_of, require_models
from dinodp.report.figures.style import COLOURS, LINE_STYLES, new_figure, styled

NAME = "froc"
END = 8  # false regions per image at the right end


@styled
def draw(data: FigureData) -> Figure:
    """A line per model by its primary score, up to where more false regions occur; in the legend the values at 1, 2, 4.

    Below the threshold of the most false regions these grow together, so that the curve would turn back: it ends there.
    Every image is a scan by itself, also the slices of a volume: of those the test split may hold every n-th only.
    """
    models = require_models(data, NAME)
    lesions = [lesions_of(row, data.mask_rule) for _, row in data.manifest.iterrows()]
    if not any(lesion.any() for lesion, _ in lesions):
        raise NothingToShow(f"Figure {NAME!r} needs masks of lesions, or boxes, and the test split has none.")
    figure = new_figure(98)
    axes = figure.subplots()
    for index, model in enumerate(models):
        counter = _counted(model, lesions)
        curve = counter.curve()
        false = curve["false_regions"]
        inside = (np.cumsum(false > END) == 0) & (np.arange(len(false)) <= np.argmax(false))
        found = counter.values()
        said = ", ".join(f"{100 * found[name]:.0f}" for name in names_of("lesions"))
        axes.step(
            false[inside],
            curve["sensitivity"][inside],
            where="post",
            label=f"{model.name}: {said} % at {', '.join(map(str, FALSE_REGIONS))}",
            color=COLOURS[index % len(COLOURS)],
            linestyle=LINE_STYLES[index % len(LINE_STYLES)],
        )
    for limit in FALSE_REGIONS:
        axes.axvline(limit, color="0.6", linewidth=0.8, linestyle=":")
    axes.set(xlabel="False regions per image", ylabel="Lesions found", xlim=(0, END), ylim=(-0.01, 1.02))
    axes.grid(color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2)
    figure.suptitle(data.title)
    return figure


def _counted(model: ModelData, lesions: Sequence[Lesions]) -> LesionCounter:
    maps = model.scores[model.primary_score]
    counter = LesionCounter(region_thresholds(maps), 1)
    for scores, (lesion, parts) in zip(maps, lesions, strict=True):
        counter.add(anomaly_map(scores, (lesion.shape[0], lesion.shape[1])), lesion, parts=parts)
    return counter
