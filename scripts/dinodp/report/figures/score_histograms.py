"""Distributions of the patch scores of normal and anomalous patches, with the calibrated thresholds."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dinodp.report.figures.data import Array, FigureData, ModelData, require_models
from dinodp.report.figures.examples import patch_coverage
from dinodp.report.figures.style import BLACK, BLUE, SMALL, VERMILION, new_figure, score_label, styled

NAME = "score_histograms"
MIN_COVERAGE = 0.5
BINS = 60
COLUMNS = 3
LABEL_SPACING = 0.055  # of the panel's width


@styled
def draw(data: FigureData) -> Figure:
    """One panel per model: log density of its primary score."""
    models = require_models(data, NAME)
    columns = min(COLUMNS, len(models))
    rows = -(-len(models) // columns)
    figure = new_figure(18 + 66 * rows)
    panels = figure.subplots(rows, columns, squeeze=False)
    coverages: dict[tuple[int, int], Array] = {}
    for axes, model in zip(panels.ravel(), models, strict=False):
        grid = model.scores[model.primary_score].shape[1:]
        coverage = coverages.setdefault(grid, patch_coverage(data.manifest, grid, data.mask_rule))
        rule = _draw_histograms(axes, model, coverage)
    for axes in panels.ravel()[len(models) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("Density (log scale)")
    figure.suptitle(f"{data.title}: test patches; normal = no lesion, anomalous = {rule}")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _draw_histograms(axes: Axes, model: ModelData, coverage: Array) -> str:
    score = model.primary_score
    values = model.scores[score]
    anomalous, rule = _anomalous(coverage)
    bins = [float(edge) for edge in np.linspace(*_range(values), BINS + 1)]
    groups = (
        (values[anomalous], "Anomalous", {"color": VERMILION, "histtype": "stepfilled", "alpha": 0.45}),
        (values[coverage == 0], "Normal", {"color": BLUE, "histtype": "step", "linewidth": 1.3}),
        (
            model.normal_validation.get(score),
            "Normal, validation images",
            {"color": BLACK, "histtype": "step", "ls": ":"},
        ),
    )
    for group, label, options in groups:
        if group is not None and group.size:
            axes.hist(np.ravel(group), bins=bins, density=True, label=label, **options)
    axes.set_yscale("log")
    axes.set_xlabel(score_label(score))
    axes.set_title(model.name, pad=40)
    _draw_thresholds(axes, model.thresholds.get(score, {}))
    return rule


def _anomalous(coverage: Array) -> tuple[Array, str]:
    """Patches mostly covered by a lesion; any overlap where no patch is; all of an anomalous image without mask."""
    if (coverage > MIN_COVERAGE).any():
        return coverage > MIN_COVERAGE, f"lesion covers > {100 * MIN_COVERAGE:.0f} % of the patch"
    if (coverage > 0).any():
        return coverage > 0, "any overlap with a lesion"
    if np.isnan(coverage).any():
        return np.isnan(coverage), "in an anomalous image (there are no masks)"
    return coverage > 0, "none (no test image is anomalous)"


def _range(values: Array) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return low, high if high > low else low + 1


def _draw_thresholds(axes: Axes, thresholds: dict[str, float]) -> None:
    """Vertical lines with their false positive rates above, moved apart where lines are close."""
    low, high = axes.get_xlim()
    last = -np.inf
    for name, value in sorted(thresholds.items(), key=lambda item: (item[1], item[0][::-1])):
        if not low <= value <= high:
            continue
        axes.axvline(value, color="0.35", linewidth=0.8, linestyle="--")
        last = max((value - low) / (high - low), last + LABEL_SPACING)
        text = f"FPR {int(name.removeprefix('threshold_fpr'))} %"
        axes.text(last, 1.01, text, transform=axes.transAxes, rotation=90, fontsize=SMALL, ha="center", va="bottom")
