"""DICOM series: ``train/<series>/``, ``valid/<series>/``, ``test/{normal,anomalous}/<series>/``, a folder per series.

Needs pydicom (extra `dicom`). Labels hold for whole series and there are no masks; with lesion masks
convert the series to NIfTI and use that source.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from dinodp.datasets.manifest import image_row, make_manifest
from dinodp.datasets.sources.base import SliceOptions
from dinodp.datasets.volumes import Volume, save_slice, slice_indices, window
from dinodp.errors import InputError
from dinodp.jobs.files import replaced_folder
from dinodp.jobs.logs import logger, progress
from dinodp.options.base import option

DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
MAGIC_AT, MAGIC = 128, b"DICM"
SERIES = {"train": {"normal": "train/*"}, "valid": {"normal": "valid/*"}}
SERIES["test"] = {label: f"test/{label}/*" for label in ("normal", "anomalous")}


class DicomOptions(SliceOptions):
    """DICOM series in folders; needs pydicom."""

    source: Literal["dicom"] = "dicom"
    background: float | None = option(None, "Value of what is no foreground; absent: the lowest value of the series.")

    def prepare(self, folder: Path) -> pd.DataFrame:
        """Write the slices of every series as PNG below ``folder/slices``.

        Raises InputError without pydicom, for missing folders, files that are no DICOM image, mixed or colour series.
        """
        root = Path(self.root)
        series = [
            (split, label, path)
            for split, labels in SERIES.items()
            for label, pattern in labels.items()
            for path in _folders(root, pattern)
        ]
        with replaced_folder(folder / "slices") as target:
            rows = [row for task in progress(series, "Series", unit="series") for row in _cut(*task, self, target)]
        return make_manifest(
            image_row(split, label, folder / "slices" / f"{name}.png", None, subject, index)
            for split, label, name, subject, index in rows
        )


def _folders(root: Path, pattern: str) -> list[Path]:
    found = sorted(path for path in root.glob(pattern) if path.is_dir())
    if not found:
        raise InputError(f"there is no folder {root / pattern}; the layout is a folder of .dcm files per series.")
    return found


def read_slices(folder: Path) -> list[Any]:
    """The DICOM files of a series, headers and pixels, in order along the slice normal. Raises InputError."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    slices = [_read(path) for path in files if is_slice(path)]
    if others := [path.name for path in files if not is_slice(path)]:
        logger.info("%s: no DICOM images, and not read: %s.", folder, ", ".join(others))
    if not slices:
        raise InputError(f"the series {folder} is empty.")
    if len({getattr(item, "SeriesInstanceUID", "") for item in slices}) > 1:
        raise InputError(f"{folder} holds files of several series; give each a folder of its own.")
    if len({(item.Rows, item.Columns) for item in slices}) > 1:
        raise InputError(f"the slices of {folder} differ in size.")
    return sorted(slices, key=_position)


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


def read_series(folder: Path) -> Volume:
    """The slices [rows, columns, slices] of a series, float32, in order along the slice normal, with rescaling.

    MONOCHROME1 is inverted, so that bright is dense as elsewhere. Raises InputError as `prepare` does.
    """
    return np.stack([rescaled(item) for item in read_slices(folder)], axis=2)


def _read(path: Path) -> Any:
    """One DICOM file with pixels."""
    try:
        import pydicom
    except ImportError as error:
        raise InputError("reading DICOM needs pydicom, which is not installed: pip install pydicom.") from error
    try:
        item = pydicom.dcmread(path)
        item.pixel_array  # noqa: B018 (decoded here, so that damage is found here)
    except Exception as error:  # pydicom raises many kinds for damaged files
        raise InputError(f"{path} is not a readable DICOM image ({error}).") from error
    if item.pixel_array.ndim != 2 or not str(item.PhotometricInterpretation).startswith("MONOCHROME"):
        raise InputError(f"{path} is {item.PhotometricInterpretation}; only single grey slices can be used.")
    return item


def _position(item: Any) -> float:
    """Place of a slice along the normal of its plane, mm; the instance number where the geometry is missing."""
    if not (getattr(item, "ImageOrientationPatient", None) and getattr(item, "ImagePositionPatient", None)):
        return float(getattr(item, "InstanceNumber", 0))
    row, column = np.asarray(item.ImageOrientationPatient, dtype=float).reshape(2, 3)
    return float(np.cross(row, column) @ np.asarray(item.ImagePositionPatient, dtype=float))


def rescaled(item: Any) -> Volume:
    """The pixels [rows, columns] of a slice, float32, with slope and intercept; MONOCHROME1 is inverted."""
    slope, intercept = float(getattr(item, "RescaleSlope", 1)), float(getattr(item, "RescaleIntercept", 0))
    values: Volume = item.pixel_array.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return -values if item.PhotometricInterpretation == "MONOCHROME1" else values


def _cut(
    split: str, label: str, series: Path, options: DicomOptions, target: Path
) -> Iterator[tuple[str, str, str, str, int]]:
    """Write the slices of one series; yields (split, label, file name, subject, slice)."""
    volume = read_series(series)
    background = volume.min() if options.background is None else options.background
    foreground = volume != background
    try:
        grey = window(volume, foreground, options.window_percentiles)
    except InputError as error:
        raise InputError(f"{series}: {error}") from error
    side = max(volume.shape[:2])
    for index in slice_indices(foreground, 2, options.slice_step, options.min_foreground, side**2):
        name = f"{split}_{series.name}_{index:03d}"
        save_slice(grey[:, :, index], side, target / f"{name}.png")
        yield split, label, name, series.name, index
