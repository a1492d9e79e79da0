"""Find the kinds of options that a package has one file each for."""

import importlib
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from pkgutil import ModuleInfo
from typing import TypeVar

from dinodp.options.base import Options

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
