"""Families of models. A module here with ``family: Literal["name"] = "name"`` in a subclass of `ModelOptions` is one of
them and is found by itself. Free of torch: the workflow reads the options when it builds the DAG.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dinodp.families.base import ModelOptions
from dinodp.options.base import chosen

NAMED = re.compile(r"^    family: Literal", re.MULTILINE)  # other modules here need torch: they are not imported


def _families() -> dict[str, type[ModelOptions]]:
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    named = [name for name in names if NAMED.search(Path(__path__[0], f"{name}.py").read_text(encoding="utf-8"))]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in named]
    classes: list[type] = [kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)]
    kinds = [kind for kind in classes if issubclass(kind, ModelOptions)]
    found = {str(kind.model_fields["family"].default): kind for kind in kinds if kind.is_complete()}
    return dict(sorted(found.items()))


FAMILIES = _families()


def model_options(entry: Mapping[str, Any], where: str = "The model") -> ModelOptions:
    """The options of a model's catalog entry. Raises InputError, beginning with ``where``, for whatever is wrong."""
    return chosen(entry, "family", FAMILIES, where).read(entry, where)


def written_options(config: Mapping[str, Any]) -> ModelOptions:
    """The options in the configuration of a model file."""
    return model_options({key: value for key, value in config.items() if key != "seed"})
