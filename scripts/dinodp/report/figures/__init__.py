"""Figures: one module per figure. A module here with a function ``draw`` is a figure of that name.

``FIGURES[name](data)`` returns a matplotlib figure; ``save_figure`` writes it as PNG and PDF with the same bytes
each time.
"""

import importlib
import pkgutil
from collections.abc import Callable

from matplotlib.figure import Figure

from dinodp.report.figures.data import FigureData, ModelData
from dinodp.report.figures.style import save_figure

__all__ = ["FIGURES", "FigureData", "ModelData", "save_figure"]


def _find_figures() -> dict[str, Callable[[FigureData], Figure]]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module.draw for name, module in modules.items() if hasattr(module, "draw")}


FIGURES: dict[str, Callable[[FigureData], Figure]] = _find_figures()
