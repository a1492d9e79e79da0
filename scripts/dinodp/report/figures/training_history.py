"""Log-likelihood and number of active components of the mixtures over the epochs of training."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dinodp.report.figures.data import FigureData, ModelData, require_mixture
from dinodp.report.figures.style import BLUE, GREEN, VERMILION, new_figure, styled

NAME = "training_history"
MARKERS_UP_TO = 60  # epochs


@styled
def draw(data: FigureData) -> Figure:
    """One column per mixture: log-likelihoods above, active components below; a line marks the chosen epoch."""
    require_mixture(data, NAME, "history")
    models = [model for model in data.models if model.history is not None]
    figure = new_figure(110)
    panels = figure.subplots(2, len(models), squeeze=False, sharex="col")
    for (above, below), model in zip(panels.T, models, strict=True):
        _draw_likelihood(above, model)
        _draw_components(below, model)
        above.set_title(model.name)
    panels[0, 0].set_ylabel("Mean log-likelihood\n(nat per patch)")
    panels[1, 0].set_ylabel("Active components")
    figure.align_ylabels(list(panels[:, 0]))
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(data.title)
    return figure


def _draw_likelihood(axes: Axes, model: ModelData) -> None:
    assert model.history is not None
    epochs = model.history["epoch"]
    size = 2.5 if len(epochs) <= MARKERS_UP_TO else 0
    series = (("train", BLUE, "-", "o"), ("validation", VERMILION, "--", "s"))
    for split, colour, line, shape in series:
        values = np.asarray(model.history[f"{split}_log_likelihood"], dtype=float)
        label = "Training" if split == "train" else "Validation (normal images)"
        axes.plot(epochs, values, marker=shape, markersize=size, color=colour, linestyle=line, label=label)
    _mark_chosen(axes, model)


def _draw_components(axes: Axes, model: ModelData) -> None:
    assert model.history is not None
    counts = model.history["active_components"]
    axes.plot(model.history["epoch"], counts, color=GREEN, marker="o", markersize=2.5)
    axes.set_ylim(0, 1.08 * float(np.max(counts)))
    axes.set_xlabel("Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _mark_chosen(axes, model)


def _mark_chosen(axes: Axes, model: ModelData) -> None:
    if model.chosen_epoch is not None:
        axes.axvline(model.chosen_epoch, color="0.3", linewidth=0.9, linestyle=":", label="Chosen epoch")
