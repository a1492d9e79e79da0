"""Figures: one module per figure. A module here with a function ``draw`` is a figure of that name.

``draw_figure(name, data)`` returns a matplotlib figure; ``save_figure`` writes it as PNG and PDF with the same bytes
each time.
"""

import importlib
import pkgutil
from collections.abc import Callable

from matplotlib.figure import Figure

from dinodp.errors import NothingToShow
from dinodp.jobs.logs import logger
from dinodp.report.figures.data import FigureData, ModelData
from dinodp.report.figures.style import save_figure, sentence_figure

__all__ = ["FIGURES", "FigureData", "ModelData", "draw_figure", "save_figure"]


def _find_figures() -> dict[str, Callable[[FigureData], Figure]]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module.draw for name, module in modules.items() if hasattr(module, "draw")}


FIGURES: dict[str, Callable[[FigureData], Figure]] = _find_figures()


def draw_figure(name: str, data: FigureData) -> Figure:
    """The figure of that name; where the run has nothing that it could show, the sentence that says so."""
    try:
        return FIGURES[name](data)
    except NothingToShow as reason:
        logger.warning("%s It is left out.", reason)
        return sentence_figure(f"{data.title}. Left out: {reason}")
