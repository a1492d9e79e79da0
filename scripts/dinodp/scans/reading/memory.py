"""Scans that are in memory: arrays, and images of nibabel and SimpleITK."""

import importlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from dinodp.datasets.geometry import Affine, require_affine
from dinodp.datasets.volumes import NiftiVolume, volume_of
from dinodp.errors import InputError
from dinodp.jobs.logs import reading_of
from dinodp.scans.reading.folder import ReadingOptions, image_scan, volume_scan
from dinodp.scans.reading.scan import Scan

AnyScan = Any  # a path, an image uint8, an image of nibabel or SimpleITK, or (voxels, affine)
ITK_METHODS = ("GetSpacing", "GetOrigin", "GetDirection")
ALLOWED = "uint8 [H, W] or [H, W, 3]; give a volume as (voxels, affine), or as an image of nibabel or SimpleITK"


def is_in_memory(scan: object) -> bool:
    """Whether this is one image or volume, not a sequence of them."""
    return _is_nibabel(scan) or _is_itk(scan) or _is_pair(scan)


def read_memory(name: str, scan: AnyScan, options: ReadingOptions) -> Scan:
    """A scan of what is in memory. Raises InputError for what is none."""
    with reading_of(Path(name)):
        if isinstance(scan, np.ndarray):
            return image_scan(name, Path(name), _checked(scan), options)
        volume = _volume(name, scan, options.index)
        return volume_scan(name, Path(name), options, volume.voxels(), volume)


def axes_in_memory(name: str, scan: AnyScan, options: ReadingOptions) -> Affine | None:
    """As `dinodp.scans.reading.folder.axes_of`."""
    try:
        return None if isinstance(scan, np.ndarray) else _volume(name, scan, options.index).affine
    except InputError:
        return None


def _volume(name: str, scan: AnyScan, index: int | None) -> NiftiVolume:
    if _is_nibabel(scan):
        image = scan if isinstance(scan, nib.Nifti1Pair) else nib.Nifti1Image.from_image(scan)
    elif _is_itk(scan):
        image = _placed(name, *_of_itk(scan))
    elif _is_pair(scan):
        image = _placed(name, *scan)
    else:
        raise InputError(f"{name} is a {type(scan).__name__}; scans are paths, or images {ALLOWED}.")
    return volume_of(Path(name), image, index)


def _is_nibabel(scan: object) -> bool:
    return hasattr(scan, "dataobj") and hasattr(scan, "affine")


def _is_itk(scan: object) -> bool:
    return all(hasattr(scan, name) for name in ITK_METHODS)


def _is_pair(scan: object) -> bool:
    return isinstance(scan, tuple) and len(scan) == 2 and np.shape(scan[1]) == (4, 4)


def _placed(name: str, voxels: npt.ArrayLike, affine: npt.ArrayLike) -> nib.Nifti1Image:
    """A NIfTI image in mm of voxels of any type of real numbers."""
    values = np.asarray(voxels)
    if values.dtype.kind not in "buif":
        raise InputError(f"{name} holds voxels of the type {values.dtype}; only grey ones are read.")
    place = np.asarray(affine, dtype=np.float64)
    require_affine(place, name)
    image = nib.Nifti1Image(values.astype(np.float32), place)
    image.header.set_xyzt_units("mm")
    return image


def _of_itk(image: Any) -> tuple[npt.NDArray[Any], Affine]:
    """Voxels [i, j, k] and the affine to mm (right, front, top); ITK counts leftwards and backwards."""
    voxels = importlib.import_module(type(image).__module__.partition(".")[0]).GetArrayFromImage(image)
    spacing, origin = (np.array(values, dtype=np.float64) for values in (image.GetSpacing(), image.GetOrigin()))
    n = len(spacing)
    affine = np.eye(4)
    affine[:n, :n] = np.reshape(image.GetDirection(), (n, n)) * spacing
    affine[:n, 3] = origin
    affine[:2] *= -1
    return np.asarray(voxels).transpose(), affine


def _checked(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InputError(f"An array of shape {image.shape} and type {image.dtype} is no image: those are {ALLOWED}.")
    return image
