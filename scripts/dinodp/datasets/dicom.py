"""Read DICOM series: a folder of files, one slice each. Needs pydicom (extra `dicom`)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dinodp.datasets.geometry import VolumeGeometry, require_affine
from dinodp.datasets.volumes import Volume
from dinodp.errors import InputError, one_line
from dinodp.jobs.logs import logger

DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
MAGIC_AT, MAGIC = 128, b"DICM"
EVEN_GAPS = 0.02  # share of the median distance by which the gaps between slices may differ
PLACE = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")


def is_slice(file: Path) -> bool:
    """Whether a file is, by its name or its first bytes, a DICOM image; DICOMDIR is a table of contents.

    Raises InputError when it cannot be read.
    """
    if file.name == "DICOMDIR":
        return False
    if file.suffix.lower() in DICOM_SUFFIXES:
        return True
    try:
        with file.open("rb") as stream:
            stream.seek(MAGIC_AT)
            return stream.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}).") from error


def read_slices(folder: Path) -> list[Any]:
    """The DICOM files of a series, headers and pixels, in order along the slice normal.

    Raises InputError without pydicom, for files that are no DICOM image, mixed or colour series, and for none.
    """
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    slices = [_read(path) for path in files if is_slice(path)]
    if others := [path.name for path in files if not is_slice(path)]:
        logger.info("%s: no DICOM images, and not read: %s.", folder, ", ".join(others))
    if not slices:
        raise InputError(f"the series {folder} is empty.")
    if len({getattr(item, "SeriesInstanceUID", "") for item in slices}) > 1:
        raise InputError(f"{folder} holds files of several series; give each a folder of its own.")
    if len({item.pixel_array.shape for item in slices}) > 1:
        raise InputError(f"the slices of {folder} differ in size.")
    return sorted(slices, key=_position)


def read_series(folder: Path) -> Volume:
    """The slices [rows, columns, slices] of a series, float32, in order along the slice normal, with rescaling.

    MONOCHROME1 is inverted, so that bright is dense as elsewhere. Raises InputError as `read_slices` does.
    """
    return _pixels(read_slices(folder))


def read_placed_series(folder: Path) -> tuple[Volume, Callable[[int], VolumeGeometry]]:
    """Voxels [column, row, slice] of a series, and its geometry for an axis, in mm to the right, front and top.

    Raises InputError as `read_slices` does, and where the place of the slices is not known or one is missing.
    """
    slices = read_slices(folder)
    affine = _affine(slices, folder)
    voxels = _pixels(slices).transpose(1, 0, 2)
    return voxels, lambda axis: VolumeGeometry(voxels.shape, affine, axis)


def _read(path: Path) -> Any:
    """One DICOM file with pixels."""
    try:
        import pydicom
    except ImportError as error:
        raise InputError("reading DICOM needs pydicom, which is not installed: pip install pydicom.") from error
    try:
        item = pydicom.dcmread(path)
        # decoded here, so that damage is found here
        pixels, kind, _ = item.pixel_array, str(item.PhotometricInterpretation), getattr(item, "SeriesInstanceUID", "")
    except Exception as error:  # pydicom raises many kinds for damaged files
        raise InputError(f"{path} is not a readable DICOM image ({one_line(error)}).") from error
    if pixels.ndim != 2 or not kind.startswith("MONOCHROME"):
        raise InputError(f"{path} is {kind}; only single grey slices can be used.")
    return item


def _position(item: Any) -> float:
    """Place of a slice along the normal of its plane, mm; the instance number where the geometry is missing."""
    if not (_has(item, "ImageOrientationPatient") and _has(item, "ImagePositionPatient")):
        return float(_numbers(item, "InstanceNumber", 1)[0]) if _has(item, "InstanceNumber") else 0.0
    row, column = _numbers(item, "ImageOrientationPatient", 6).reshape(2, 3)
    return float(np.cross(row, column) @ _numbers(item, "ImagePositionPatient", 3))


def _value(item: Any, name: str) -> Any:
    """What an element holds, None where it is absent. Raises InputError where it is of no known kind."""
    try:
        return getattr(item, name, None)
    except Exception as error:  # decoded only now
        raise InputError(f"{item.filename} has a damaged {name} ({one_line(error)}).") from error


def _has(item: Any, name: str) -> bool:
    return _value(item, name) not in (None, "")


def _numbers(item: Any, name: str, count: int) -> npt.NDArray[np.float64]:
    """The numbers [count] of an element. Raises InputError for others, and those that are not finite."""
    try:
        numbers = np.asarray(_value(item, name), dtype=np.float64).reshape(count)
    except (TypeError, ValueError):
        numbers = np.full(count, np.nan)
    if not np.isfinite(numbers).all():
        raise InputError(f"{item.filename} has the {name} {_value(item, name)!r}; {count} finite numbers are needed.")
    return numbers


def _pixels(slices: list[Any]) -> Volume:
    return np.stack([_rescaled(item) for item in slices], axis=2)


def _rescaled(item: Any) -> Volume:
    """The pixels [rows, columns] of a slice, float32, with slope and intercept; MONOCHROME1 is inverted."""
    slope, intercept = (
        float(_numbers(item, name, 1)[0]) if _has(item, name) else default
        for name, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    with np.errstate(over="ignore", invalid="ignore"):
        values: Volume = item.pixel_array.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    if not np.isfinite(values).all():
        raise InputError(f"{item.filename} has pixels beyond float32 after rescaling by {slope:g} and {intercept:g}.")
    return -values if item.PhotometricInterpretation == "MONOCHROME1" else values


def _affine(slices: list[Any], folder: Path) -> npt.NDArray[np.float64]:
    """From voxel indices [column, row, slice] to mm in the axes of NIfTI [4, 4]."""
    first = slices[0]
    if missing := [name for name in PLACE if not all(_has(item, name) for item in slices)]:
        raise InputError(f"The series {folder} lacks {missing[0]}: where its slices lie is not known.")
    across, down = _numbers(first, "ImageOrientationPatient", 6).reshape(2, 3)
    row_gap, column_gap = _numbers(first, "PixelSpacing", 2)
    positions = np.array([_numbers(item, "ImagePositionPatient", 3) for item in slices])
    thickness = float(_numbers(first, "SliceThickness", 1)[0]) if _has(first, "SliceThickness") else 0.0
    step = _step(positions, np.cross(across, down), thickness or 1.0, folder)
    affine = np.eye(4)
    affine[:3] = np.column_stack([across * column_gap, down * row_gap, step, positions[0]])
    affine[:2] *= -1  # DICOM counts leftwards and backwards
    require_affine(affine, folder)
    return affine


def _step(
    positions: npt.NDArray[np.float64], normal: npt.NDArray[np.float64], thickness: float, folder: Path
) -> npt.NDArray[np.float64]:
    """Vector [3] in mm from one slice to the next; raises InputError for missing or repeated slices."""
    if len(positions) == 1:
        return normal * thickness
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    if usual <= 0 or np.abs(gaps - usual).max() > EVEN_GAPS * usual + 0.01:
        raise InputError(
            f"The slices of {folder} lie {gaps.min():.2f} to {gaps.max():.2f} mm apart: slices are missing or repeated."
        )
    step: npt.NDArray[np.float64] = (positions[-1] - positions[0]) / (len(positions) - 1)
    return step
