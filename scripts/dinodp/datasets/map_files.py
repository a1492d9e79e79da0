"""Anomaly maps that any tool wrote: one file per image or volume, found by name, checked when it is read."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dinodp.datasets.volumes import SUFFIXES, NiftiVolume, open_nifti
from dinodp.datasets.walking import walk
from dinodp.errors import InputError, one_line
from dinodp.images import read_values

ARRAY = ".npy"
IMAGES = (".tiff", ".tif", ".png")
MAP_SUFFIXES = (*SUFFIXES, ARRAY, *IMAGES)
IN_WORDS = "NIfTI (.nii, .nii.gz), NumPy arrays (.npy), and TIFF or PNG of 16 bits or floating point"
Map = npt.NDArray[np.float32]


def find_maps(folder: Path) -> dict[str, Path]:
    """The maps below a folder by name: the path below it, joined by two underscores, without suffix.

    Raises InputError where there is no folder or no map, and for two maps of one name.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder} of anomaly maps.")
    found = walk(folder).ending(MAP_SUFFIXES)
    if not found.files:
        left = f"; it holds {found.left_in_words()}" if found.left_in_words() else ""
        raise InputError(f"The folder {folder} holds no anomaly map: {IN_WORDS} are read{left}.")
    return named(found.say(), folder)


def find_arrays(folder: Path) -> dict[str, Path]:
    """The NumPy arrays below a folder, by name as `find_maps` gives it; none where there is no folder."""
    return named(walk(folder).ending((ARRAY,)).files, folder) if folder.is_dir() else {}


def named(files: list[Path], folder: Path) -> dict[str, Path]:
    """Files by name. Raises InputError for two that differ in their suffix only."""
    by_name: dict[str, Path] = {}
    for path in files:
        name = name_of("__".join(path.relative_to(folder).parts))
        if name in by_name:
            raise InputError(
                f"{by_name[name]} and {path} are both called {name}: which of them is meant? Keep one of them."
            )
        by_name[name] = path
    return by_name


def name_of(file: str) -> str:
    """A file's name without the suffix of a map."""
    end = next((end for end in MAP_SUFFIXES if file.lower().endswith(end)), "")
    return file[: len(file) - len(end)]


def read_map_file(path: Path) -> tuple[Map, NiftiVolume | None]:
    """Scores float32 [H, W], [slice, H, W] of an array, or as on disk of NIfTI, of which also the volume is given.

    Raises InputError, which names the file, for what cannot be read, is not grey, has 8 bits, another number of
    dimensions, or values that are not finite.
    """
    if path.name.lower().endswith(SUFFIXES):
        volume = open_nifti(path)
        return volume.voxels(), volume
    return (read_array(path) if path.name.lower().endswith(ARRAY) else _picture(path)), None


def read_array(path: Path, what: str = "map") -> Map:
    """A NumPy array [H, W] or [slice, H, W] as float32. Raises InputError as `read_map_file` does."""
    try:
        stored: npt.NDArray[Any] = np.load(path, allow_pickle=False)
        values = np.asarray(stored, dtype=np.float32) if stored.dtype.kind in "biuf" else None
    except Exception as error:  # NumPy raises many kinds for damaged files
        raise InputError(f"The {what} {path} is not a readable NumPy array ({one_line(error)}).") from error
    if values is None:
        raise InputError(f"The {what} {path} holds values of the type {stored.dtype}: real numbers are needed.")
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim not in (2, 3) or not values.size:
        raise InputError(
            f"The {what} {path} has the shape {stored.shape}: [rows, columns] of an image, or [slices, rows, columns] "
            "of a volume, is needed."
        )
    if not np.isfinite(values).all():
        raise InputError(f"The {what} {path} holds {_not_finite(values)} values that are not finite (NaN or infinity).")
    return values


def _not_finite(values: Map) -> int:
    return int(np.count_nonzero(~np.isfinite(values)))


def _picture(path: Path) -> Map:
    values = read_values(path)
    if values.dtype == np.uint8:
        raise InputError(
            f"The map {path} has 8 bits or colours: 256 values tie most scores, so write it as 16-bit or "
            "floating-point grey, or as .npy."
        )
    return values.astype(np.float32)
