"""Volumes to 8-bit slices: canonical orientation, an intensity window, padding to a common square."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dinodp.errors import InputError

Volume = npt.NDArray[np.float32]
Slice = npt.NDArray[np.uint8]
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
SUFFIXES = (".nii.gz", ".nii")


def open_volume(path: Path) -> Any:
    """A NIfTI image in canonical orientation (axes run to the right, front and top), voxels not yet read.

    Raises InputError when the file is missing, unreadable, or not three-dimensional.
    """
    import nibabel as nib  # half a second that the workflow need not pay

    if not path.is_file():
        raise InputError(f"there is no volume {path}.")
    try:
        image = nib.squeeze_image(nib.load(path))
    except Exception as error:  # nibabel raises many kinds for damaged files
        raise InputError(f"{path} is not a readable NIfTI volume ({error}).") from error
    if len(image.shape) != 3:
        shape = " x ".join(map(str, image.shape))
        raise InputError(f"{path} has the shape {shape}; a volume must have three dimensions.")
    return nib.as_closest_canonical(image)


def labelled(labels: Volume, path: Path) -> npt.NDArray[np.bool_]:
    """Where a mask's labels are not zero. Raises InputError for negative and broken numbers."""
    if labels.min() < 0 or (labels != np.round(labels)).any():
        raise InputError(f"The mask {path} must hold labels 0, 1, 2, ..., not negative or broken numbers.")
    return labels > 0


def voxels(image: Any, path: Path) -> Volume:
    """The voxels of an opened volume, float32. Raises InputError when they cannot be read or are not finite."""
    try:
        values: Volume = np.asanyarray(image.dataobj).astype(np.float32)
    except Exception as error:  # truncated or damaged compressed data
        raise InputError(f"{path} is damaged: its voxels cannot be read ({error}).") from error
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise InputError(f"{path} holds {count} voxels that are not finite (NaN or infinity).")
    return values


def window(volume: Volume, foreground: npt.NDArray[np.bool_], percentiles: Sequence[float]) -> Slice:
    """Scale the volume so that two percentiles of its foreground become 0 and 255; the background becomes 0.

    Returns uint8 of the volume's shape. Raises InputError when the foreground is empty or has a single value.
    """
    if not foreground.any():
        raise InputError("there is no foreground: every voxel has the background's value.")
    low, high = np.percentile(volume[foreground], percentiles)
    if high <= low:
        raise InputError(
            f"the foreground has no contrast: its percentiles {percentiles[0]} and {percentiles[1]} are both {low:g}."
        )
    scaled = np.clip((volume - low) / (high - low), 0, 1) * foreground
    grey: Slice = np.round(scaled * 255).astype(np.uint8)
    return grey


def plane(volume: npt.NDArray[Any], axis: int, index: int) -> npt.NDArray[Any]:
    """Slice ``index`` along a canonical axis, upright: rows run from front (or top) to back, columns to the right."""
    return np.rot90(np.take(volume, index, axis=axis))


def pad_to_square(picture: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Centre a picture [h, w] on zeros [side, side]; the odd pixel goes below and to the right."""
    missing = [side - length for length in picture.shape]
    return np.pad(picture, [(length // 2, length - length // 2) for length in missing])


def slice_indices(foreground: npt.NDArray[np.bool_], axis: int, step: int, minimum: float, area: int) -> list[int]:
    """Every ``step``-th of the slices whose foreground covers at least ``minimum`` of ``area`` pixels."""
    others = tuple(other for other in range(3) if other != axis)
    covered = foreground.sum(axis=others) / area
    return [int(index) for index in np.flatnonzero(covered >= minimum)[::step]]


def save_slice(picture: Slice, side: int, path: Path) -> None:
    """Write a slice [h, w], padded to a square, as an 8-bit grey PNG."""
    Image.fromarray(np.ascontiguousarray(pad_to_square(picture, side))).save(path)
