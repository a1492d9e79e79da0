"""The HDF5 contracts: embeddings, models and scores. Write to a temporary name, rename when complete.

Every file carries ``format``, ``format_version``, ``library_digest`` (of the code that makes files of its kind, whoever
calls it), ``package_versions`` and ``config`` (JSON).
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from dinodp.errors import InputError
from dinodp.jobs.closure import code_digest
from dinodp.jobs.files import replaced_file
from dinodp.jobs.provenance import package_versions

Maps = dict[str, npt.NDArray[np.float32]]
FORMAT_VERSION = 1
FORMATS = {  # each with the module that computes what a file holds
    "embeddings": "dinodp.embeddings.computing",
    "model": "dinodp.families",
    "scores": "dinodp.families",
    "curves": "dinodp.evaluation.test_split",
    "detector": "dinodp.scans.detecting.model_file",
}


def describe_origin(file: h5py.File, kind: str, config: Mapping[str, Any]) -> None:
    """Write the attributes that every file carries."""
    file.attrs["format"] = kind
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["library_digest"] = code_digest(FORMATS[kind])
    file.attrs["package_versions"] = json.dumps(package_versions(), sort_keys=True)
    file.attrs["config"] = json.dumps(dict(config), sort_keys=True)


@contextmanager
def writing(path: Path, kind: str, config: Mapping[str, Any]) -> Iterator[h5py.File]:
    """Open a temporary HDF5 file beside ``path``; it takes the name ``path`` when the block ends without an error."""
    with replaced_file(path) as temporary, h5py.File(temporary, "w", track_order=False) as file:
        describe_origin(file, kind, config)
        yield file


@contextmanager
def reading(path: Path, kind: str | None = None) -> Iterator[h5py.File]:
    """Open a file of this project for reading.

    Raises InputError when the file is missing, is not HDF5, is of another kind or a newer version, or is put together
    from shards of which one is missing.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path} is not a readable HDF5 file ({error}).") from error
    with file:
        _check_format(file, path, kind)
        _check_shards(file, path)
        yield file


def _check_format(file: h5py.File, path: Path, kind: str | None) -> None:
    found = file.attrs.get("format")
    if found not in FORMATS or (kind is not None and found != kind):
        raise InputError(
            f"{path} holds {found or 'no format attribute'}, but {kind or 'one of ' + ', '.join(FORMATS)} was expected."
        )
    version = int(file.attrs.get("format_version", 0))
    if version != FORMAT_VERSION:
        raise InputError(f"{path} has format version {version}; this version of dinodp reads version {FORMAT_VERSION}.")


def _check_shards(file: h5py.File, path: Path) -> None:
    """HDF5 itself would read zeros where a source of a virtual data set is missing."""
    for item in file.values():
        if isinstance(item, h5py.Dataset) and item.is_virtual:
            names = [source.file_name for source in item.virtual_sources()]
            if absent := [name for name in names if not (path.parent / name).is_file()]:
                raise InputError(
                    f"{path} is put together from shards, of which {', '.join(absent)} is missing beside it: keep the "
                    "shards, or make them again with `snakemake --forcerun gather_embeddings`."
                )


def config_of(file: h5py.File) -> dict[str, Any]:
    """The configuration that made an open file."""
    config: dict[str, Any] = json.loads(file.attrs["config"])
    return config


def write_state(
    path: Path, config: Mapping[str, Any], state: Mapping[str, Any], history: Mapping[str, Any], kind: str = "model"
) -> None:
    """Write a model: ``state`` (arrays and numbers, group ``state``) and ``history`` (one array per quantity)."""
    with writing(path, kind, config) as file:
        for group, values in (("state", state), ("history", history)):
            for name, value in values.items():
                file.create_dataset(f"{group}/{name}", data=np.asarray(value), track_times=False)


def read_state(
    path: Path, kind: str = "model"
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
    """Return (config, state, history) of a model file."""
    with reading(path, kind) as file:
        state, history = (
            {name: item[()] for name, item in file[group].items()} if group in file else {}
            for group in ("state", "history")
        )
        return config_of(file), state, history


def write_maps(
    path: Path,
    config: Mapping[str, Any],
    maps: Mapping[str, npt.NDArray[np.float32]],
    image_scores: Mapping[str, npt.NDArray[np.float32]],
) -> None:
    """Write patch scores [image, row, col] and image scores [image], one float32 data set per score.

    The name of a score that knows the masks ends in the mask rule: ``oracle/gt0``.
    """
    with writing(path, "scores", config) as file:
        for name, values in maps.items():
            file.create_dataset(name, data=values, dtype="float32", track_times=False)
            file.create_dataset(f"image_scores/{name}", data=image_scores[name], dtype="float32", track_times=False)


def read_maps(path: Path, mask_rule: str = "gt0") -> Maps:
    """Return {score name: float32 [image, row, col]} of a scores file, as they are under a mask rule."""
    with reading(path, "scores") as file:
        return _under({name: item for name, item in file.items() if name != "image_scores"}, mask_rule)


def read_image_scores(path: Path, mask_rule: str = "gt0") -> Maps:
    """Return {score name: float32 [image]} of a scores file, as they are under a mask rule."""
    with reading(path, "scores") as file:
        return _under(file["image_scores"], mask_rule)


def _under(items: Mapping[str, h5py.Dataset | h5py.Group], mask_rule: str) -> Maps:
    """A score that knows the masks is a group with one data set per mask rule; the others are data sets."""
    chosen = {name: item[mask_rule] if isinstance(item, h5py.Group) else item for name, item in items.items()}
    return {name: item[()] for name, item in chosen.items()}


def read_curves(path: Path, score: str, mask_rule: str) -> dict[str, npt.NDArray[np.floating]]:
    """Return {name: values of all points} of the curves of a score; empty where it has none (no masks)."""
    with reading(path, "curves") as file:
        group = file.get(f"{score}/{mask_rule}", {})
        return {name: item[()] for name, item in group.items() if isinstance(item, h5py.Dataset)}
