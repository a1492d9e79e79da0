"""Sources of data sets. Each module here has ``SOURCE`` (its name in the catalog), ``OPTIONS`` (its keys with their
defaults; ``REQUIRED`` marks those without one) and ``prepare(options, folder) -> manifest``; it is found by itself.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from dinodp.datasets.manifest import write_manifest
from dinodp.datasets.sources.options import complete
from dinodp.errors import InputError, require_known
from dinodp.jobs.logs import logger


def _sources() -> dict[str, ModuleType]:
    modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return {module.SOURCE: module for module in modules if hasattr(module, "SOURCE")}


SOURCES = _sources()


def prepare_dataset(name: str, options: Mapping[str, Any], folder: Path) -> Path:
    """Write ``folder/manifest.csv`` of a catalog entry, last of all, and return its path.

    Raises InputError for an unknown source or key, and for whatever is wrong with the data.
    """
    require_known(f"source of the data set {name}:", options.get("source"), SOURCES)
    source = SOURCES[options["source"]]
    try:
        frame = source.prepare(complete(options, source.OPTIONS), folder)
        write_manifest(frame, folder / "manifest.csv", where=f"the data set {name}")
    except InputError as error:
        raise InputError(f"Data set {name}: {error}") from error
    for (split, label), count in frame.groupby(["split", "label"]).size().items():
        logger.info("%s: %s %s, %d images", name, split, label, count)
    return folder / "manifest.csv"
