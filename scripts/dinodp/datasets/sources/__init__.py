"""Sources of data sets. A module with ``source: Literal["name"] = "name"`` in a subclass of `DatasetOptions` is one of
them and is found by itself.
"""

import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dinodp.datasets.manifest import write_manifest
from dinodp.datasets.sources.base import DatasetOptions
from dinodp.errors import InputError
from dinodp.jobs.logs import logger
from dinodp.jobs.origin import sha256
from dinodp.options.base import chosen
from dinodp.options.finding import kinds_in


def _sources() -> dict[str, type[DatasetOptions]]:
    kinds = kinds_in(__name__, pkgutil.iter_modules(__path__), DatasetOptions, "    source: Literal")
    return {str(kind.model_fields["source"].default): kind for kind in kinds if kind.is_complete()}


SOURCES = dict(sorted(_sources().items()))


def dataset_options(entry: Mapping[str, Any], where: str = "The data set") -> DatasetOptions:
    """The options of a data set's catalog entry. Raises InputError, beginning with ``where``, for whatever is wrong."""
    return chosen(entry, "source", SOURCES, where).read(entry, where)


def prepare_dataset(name: str, entry: Mapping[str, Any], folder: Path) -> Path:
    """Write ``folder/manifest.csv`` of a catalog entry, last of all, and return its path.

    Raises InputError for an unknown source or key, and for whatever is wrong with the data.
    """
    options = dataset_options(entry, f"Data set {name}")
    try:
        frame = options.prepare(folder)
        made_from = {"options": sha256(json.dumps(dict(entry), sort_keys=True, default=str))}
        write_manifest(frame, folder / "manifest.csv", f"the data set {name}", made_from)
    except InputError as error:
        raise InputError(f"Data set {name}: {error}") from error
    for (split, label), rows in frame.groupby(["split", "label"]):
        logger.info("%s: %s %s, %d images", name, split, label, len(rows))
    return folder / "manifest.csv"
