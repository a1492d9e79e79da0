"""DICOM series: ``train/<series>/``, ``valid/<series>/``, ``test/{normal,anomalous}/<series>/``, a folder per series.

Needs pydicom (extra `dicom`). Labels hold for whole series and there are no masks; with lesion masks
convert the series to NIfTI and use that source.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from dinodp.datasets.dicom import pixel_spacing, read_series
from dinodp.datasets.manifest import image_row, make_manifest
from dinodp.datasets.sources.base import SliceOptions
from dinodp.datasets.volumes import (
    grey_slice,
    require_foreground,
    require_one_spacing,
    resampled_size,
    resized_slice,
    save_slice,
    slice_indices,
    window_of,
)
from dinodp.datasets.walking import folders_in, say_beside, walk
from dinodp.errors import InputError
from dinodp.jobs.files import replaced_folder
from dinodp.jobs.logs import progress
from dinodp.options.base import option

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
        say_beside(root, SERIES)
        say_beside(root / "test", SERIES["test"])
        known = {path for _, _, path in series}
        walk(root).where(lambda path: path.parent in known, "file outside of the folders of series").say()
        self._require_spacing([path for _, _, path in series])
        with replaced_folder(folder / "slices") as target:
            rows = [row for task in progress(series, "Series", unit="series") for row in _cut(*task, self, target)]
        return make_manifest(
            image_row(split, label, folder / "slices" / f"{name}.png", None, subject, index)
            for split, label, name, subject, index in rows
        )


    def _require_spacing(self, series: list[Path]) -> None:
        """Raise InputError for pixels of several sizes, and for unknown ones that were to be resampled."""
        known = {path: spacing for path in series if (spacing := pixel_spacing(path)) is not None}
        if self.spacing is None:
            require_one_spacing(list(known), list(known.values()))
        elif unknown := [path for path in series if path not in known]:
            raise InputError(f"the series {unknown[0]} lacks PixelSpacing: it cannot be resampled (key spacing).")


def _folders(root: Path, pattern: str) -> list[Path]:
    parent = (root / pattern).parent
    found = folders_in(parent) if parent.is_dir() else []
    if not found:
        raise InputError(f"there is no folder {root / pattern}; the layout is a folder of .dcm files per series.")
    return found


def _cut(
    split: str, label: str, series: Path, options: DicomOptions, target: Path
) -> Iterator[tuple[str, str, str, str, int]]:
    """Write the slices of one series; yields (split, label, file name, subject, slice)."""
    stack = np.moveaxis(read_series(series), 2, 0)
    foreground = stack != (stack.min() if options.background is None else options.background)
    require_foreground(foreground, series)
    window = window_of(stack[foreground], options.window_percentiles, series)
    size = resampled_size(stack.shape[1:], pixel_spacing(series) or (1.0, 1.0), options.spacing)
    side, area = max(size), max(size) ** 2 * foreground[0].size / (size[0] * size[1])
    for index in slice_indices(foreground, options.slice_step, options.min_foreground, area):
        name = f"{split}_{series.name}_{index:03d}"
        grey = resized_slice(grey_slice(stack[index], foreground[index], window), size)
        save_slice(grey, side, target / f"{name}.png")
        yield split, label, name, series.name, index
