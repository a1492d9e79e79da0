"""The tables of a run: one module per table. A module here with a function ``make`` is a table of that name.

``TABLES[name](metrics, costs, published, protocol)`` takes three tidy frames (metrics.csv under the first mask rule,
costs.csv, and the published values as `protocol.read_published` gives them) and the protocol, and returns a ``Table``.
"""

import importlib
import pkgutil

from dinodp.report.tables.table import MakeTable


def _find_tables() -> dict[str, MakeTable]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module.make for name, module in modules.items() if hasattr(module, "make")}


TABLES: dict[str, MakeTable] = _find_tables()
