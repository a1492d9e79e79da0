"""Volumes to 8-bit slices: NIfTI files, an intensity window, padding to a common square."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dinodp.datasets.geometry import VolumeGeometry, require_affine
from dinodp.datasets.walking import VOLUME_SUFFIXES
from dinodp.errors import InputError, one_line

Volume = npt.NDArray[np.float32]
Foreground = npt.NDArray[np.bool_]
Grey = npt.NDArray[np.uint8]
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
SUFFIXES = VOLUME_SUFFIXES
MAX_VOXELS = 2**30  # 4 GiB as float32; a whole-body CT has half of them
MAX_DEFLATION = 1032  # bytes that one of a compressed file can become, by its format
PERCENTILES = (0.5, 99.5)  # of the foreground: where the grey values of a volume begin and end


@dataclass(frozen=True)
class NiftiVolume:
    """One volume of a NIfTI file, its voxels not yet read: the one of ``index`` where the file holds several.

    ``shape`` is that of the one volume, with two or three dimensions.
    """

    path: Path
    image: Any
    shape: tuple[int, ...]
    index: int | None = None

    def geometry(self, axis: int) -> VolumeGeometry:
        """Where its voxels lie, sliced along a canonical ``axis``."""
        return VolumeGeometry(self.shape, self.image.affine, axis, self.image.header)

    def voxels(self) -> Volume:
        """The voxels as on disk, with slope and intercept. Raises InputError for damaged ones, NaN and infinity."""
        _require_held(self.image, self.path)
        try:
            stored = self.image.dataobj if self.index is None else self.image.dataobj[:, :, :, self.index]
            values: Volume = np.asanyarray(stored).astype(np.float32).reshape(self.shape)
        except Exception as error:  # truncated or damaged compressed data
            raise InputError(f"{self.path} is damaged: its voxels cannot be read ({one_line(error)}).") from error
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            raise InputError(f"{self.path} holds {count} voxels that are not finite (NaN or infinity).")
        return values

    def stack(self, axis: int) -> Volume:
        """Upright slices [slice, row, column] along a canonical ``axis``. Raises InputError as `voxels` does."""
        stack: Volume = self.geometry(axis).to_stack(self.voxels())
        return stack


def open_nifti(path: Path, index: int | None = None) -> NiftiVolume:
    """A volume of two or three dimensions, or the one of ``index`` of four.

    Raises InputError when the file is missing, empty or unreadable, for voxels that are not grey, another number of
    dimensions, an index that does not fit them, and an affine that cannot be inverted.
    """
    image = _opened(path)
    return NiftiVolume(path, image, _shape_of_volume(image.shape, index, path), index)


def open_volume(path: Path) -> NiftiVolume:
    """As `open_nifti`, but of three dimensions only, as the volumes of a data set are."""
    image = _opened(path)
    if len(_squeezed(image.shape)) > 3 or len(image.shape) < 3:
        raise InputError(f"{path} has the shape {_in_words(image.shape)}; a volume must have three dimensions.")
    return NiftiVolume(path, image, image.shape[:3])


def read_nifti(path: Path, index: int | None = None) -> tuple[Volume, Callable[[int], VolumeGeometry]]:
    """Voxels float32 as on disk, and the geometry for an axis. Raises InputError as `open_nifti` and `voxels` do."""
    volume = open_nifti(path, index)
    return volume.voxels(), volume.geometry


def _opened(path: Path) -> Any:
    import nibabel as nib  # half a second that the workflow need not pay

    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes).")
    try:
        image: Any = nib.load(path)
    except Exception as error:  # nibabel raises many kinds for damaged files
        raise InputError(f"{path} is not a readable NIfTI volume ({one_line(error)}).") from error
    kind = image.get_data_dtype()
    if kind.names is not None or kind.kind == "c":
        raise InputError(f"{path} holds {'complex' if kind.kind == 'c' else 'colour'} voxels; only grey ones are read.")
    require_affine(image.affine, path)
    return image


def _require_held(image: Any, path: Path) -> None:
    """Raise InputError, before memory is taken, for more voxels than are read, or than the file can hold."""
    voxels = math.prod(image.shape[:3])
    if voxels > MAX_VOXELS:
        raise InputError(f"{path} announces {voxels} voxels; at most {MAX_VOXELS} are read.")
    size = path.stat().st_size * (MAX_DEFLATION if path.suffix.lower() == ".gz" else 1)
    needed = math.prod(image.shape) * image.get_data_dtype().itemsize
    if needed > size:
        raise InputError(
            f"{path} is damaged: its voxels cannot be read ({needed} bytes are announced, it can hold {size})."
        )


def _in_words(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without trailing ones, at least two long."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _shape_of_volume(shape: tuple[int, ...], index: int | None, path: Path) -> tuple[int, ...]:
    """Shape of the one volume that is read."""
    found, text = _squeezed(shape), _in_words(shape)
    if not 2 <= len(found) <= 4:
        raise InputError(f"{path} has the shape {text}; two to four dimensions are read.")
    if len(found) == 4:
        if index is None:
            raise InputError(f"{path} holds {found[3]} volumes ({text}): choose one by its index, 0 to {found[3] - 1}.")
        if not 0 <= index < found[3]:
            raise InputError(f"{path} holds {found[3]} volumes: the index {index} is not one of 0 to {found[3] - 1}.")
        return found[:3]
    if index is not None:
        raise InputError(f"{path} holds one volume ({text}): leave out the index {index}.")
    return found if len(found) == 3 else shape[:3]


def labelled(labels: Volume, path: Path) -> npt.NDArray[np.bool_]:
    """Where a mask's labels are not zero. Raises InputError for negative and broken numbers."""
    if labels.min() < 0 or (labels != np.round(labels)).any():
        raise InputError(f"The mask {path} must hold labels 0, 1, 2, ..., not negative or broken numbers.")
    return labels > 0


def require_foreground(foreground: Foreground, name: object) -> None:
    """Raise InputError when nothing of a volume is foreground."""
    if not foreground.any():
        raise InputError(f"{name} has no foreground: every voxel has the background's value.")


def window_of(inside: Volume, percentiles: Sequence[float], name: object) -> tuple[float, float]:
    """The values [n] of a foreground that become black and white: two percentiles, or, where a few bright voxels stand
    out of one value, the ends. Raises InputError when all values are one."""
    low, high = (float(value) for value in np.percentile(inside, percentiles))
    if high <= low:
        low, high = float(inside.min()), float(inside.max())
    if high <= low:
        raise InputError(f"{name} has no contrast: every value of its foreground is {low:g}.")
    return low, high


def to_grey(values: npt.NDArray[np.floating], low: float, high: float) -> Grey:
    """Values scaled so that ``low`` and ``high`` become 0 and 255, uint8 of the same shape."""
    grey: Grey = np.round(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return grey


def grey_slice(values: Volume, foreground: Foreground, window: tuple[float, float]) -> Grey:
    """A slice [h, w] of a data set as grey values, its background black; the window in double precision."""
    return to_grey(values.astype(np.float64), *window) * foreground


def pad_to_square(picture: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Centre a picture [h, w] on zeros [side, side]; the odd pixel goes below and to the right."""
    missing = [side - length for length in picture.shape]
    return np.pad(picture, [(length // 2, length - length // 2) for length in missing])


def slice_indices(foreground: Foreground, step: int, minimum: float, area: int) -> list[int]:
    """Every ``step``-th of the slices [slice, h, w] whose foreground covers at least ``minimum`` of ``area`` pixels."""
    covered = foreground.sum(axis=(1, 2)) / area
    return [int(index) for index in np.flatnonzero(covered >= minimum)[::step]]


def save_slice(picture: Grey, side: int, path: Path) -> None:
    """Write a slice [h, w], padded to a square, as an 8-bit grey PNG."""
    Image.fromarray(np.ascontiguousarray(pad_to_square(picture, side))).save(path)
