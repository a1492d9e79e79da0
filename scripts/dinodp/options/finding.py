"""Find what a package has one file each for: kinds of options, tables, figures."""

import importlib
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from pkgutil import ModuleInfo
from typing import TypeVar

from dinodp.options.base import Options

REPORT = Path(__file__).parents[1] / "report"
Kind = TypeVar("Kind", bound=Options)


def kinds_in(package: str, modules: Iterable[ModuleInfo], base: type[Kind], marker: str) -> list[type[Kind]]:
    """The subclasses of ``base`` in those ``modules`` of a package that have a line that begins like ``marker``.

    Modules without such a line, which may need torch, are not imported.
    """
    wanted = re.compile(f"^{marker}", re.MULTILINE)
    names = [module.name for module in modules if wanted.search(_text(module))]
    found: dict[type, None] = {}
    for name in names:
        module = importlib.import_module(f"{package}.{name}")
        found |= dict.fromkeys(kind for _, kind in inspect.getmembers(module, inspect.isclass))
    return [kind for kind in found if issubclass(kind, base) and kind is not base]


def _text(module: ModuleInfo) -> str:
    folder = getattr(module.module_finder, "path", "")
    path = Path(folder, f"{module.name}.py")
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def known_tables() -> list[str]:
    """What ``run.tables`` may name: a module of ``report/tables`` with a function ``make``."""
    return modules_with(REPORT / "tables", "make")


def known_figures() -> list[str]:
    """What ``run.figures`` may name: a module of ``report/figures`` with a function ``draw``."""
    return modules_with(REPORT / "figures", "draw")


def modules_with(folder: Path, function: str) -> list[str]:
    """Names of the modules of a folder that define a function of that name; none of them is imported."""
    defined = re.compile(rf"^def {function}\(", re.MULTILINE)
    return sorted(path.stem for path in folder.glob("*.py") if defined.search(path.read_text(encoding="utf-8")))
