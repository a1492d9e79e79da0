"""Liver slices from raw BTCV and LiTS volumes, processed as BMAD's were: "BMAD-like", not BMAD.

Which slices BMAD chose is unpublished, so all with enough liver are taken; patients are in one split only.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from dinodp.datasets.manifest import image_row, make_manifest
from dinodp.datasets.sources.base import SeededOptions
from dinodp.datasets.volumes import AXES, SUFFIXES, Grey, Volume, open_volume
from dinodp.datasets.walking import files_in
from dinodp.errors import InputError
from dinodp.jobs.files import replaced_folder
from dinodp.jobs.logs import progress
from dinodp.options.base import option

BTCV_LIVER, LITS_LESION = 6, 2
LITS_WINDOW = (-200.0, 250.0)  # Hounsfield units; BTCV is not clipped
Case = tuple[str, Path, Path, bool]  # split, volume, segmentation, whether it is LiTS


class LiverVolumeOptions(SeededOptions):
    """Liver slices from raw BTCV and LiTS volumes."""

    READS: ClassVar[tuple[str, ...]] = SUFFIXES

    source: Literal["liver_volumes"] = "liver_volumes"
    btcv: str = option(..., "Folder with img/img<n>.nii.gz and label/label<n>.nii.gz.")
    lits: str = option(..., "Folder with volume-<n>.nii and segmentation-<n>.nii.")
    valid_fraction: float = option(0.1, "Share of the LiTS patients.", gt=0, lt=1)
    min_liver: float = option(0.02, "Least share of a slice that is liver.", ge=0, le=1)
    slice_step: int = option(1, "Every n-th of the slices with enough liver.", ge=1)

    def places(self) -> list[str]:
        """The folders of both collections."""
        return [self.btcv, self.lits]

    def prepare(self, folder: Path) -> pd.DataFrame:
        """Write slices and masks (0, 255) as PNG below ``folder/slices``.

        Raises InputError for missing folders or segmentations, volumes of different shapes, and damaged voxels.
        """
        cases = [*_btcv(Path(self.btcv)), *_lits(Path(self.lits), self.valid_fraction, self.seed)]
        with replaced_folder(folder / "slices") as target:
            tasks = progress(cases, "Slices", unit="volume")
            rows = [row for case in tasks for row in _cut(case, self, target)]
        final = folder / "slices"
        return make_manifest(
            image_row(split, label, final / f"{name}.png", final / f"{name}_mask.png", subject, index)
            for split, label, name, subject, index in rows
        )


def _pairs(folder: Path, volumes: str, segmentation: tuple[str, str]) -> list[tuple[Path, Path]]:
    """Volumes of a folder and their segmentations, whose paths differ by one replacement."""
    inner, name = (folder / volumes).parent, Path(volumes).name
    files = files_in(inner, SUFFIXES).say() if inner.is_dir() else []
    found = [path for path in files if fnmatch(path.name, name)]
    if not found:
        raise InputError(f"{folder} holds no volume {volumes}.nii.gz.")
    result = []
    for path in found:
        other = folder / str(path.relative_to(folder)).replace(*segmentation)
        if not other.is_file():
            raise InputError(f"the volume {path} has no segmentation {other}.")
        result.append((path, other))
    return result


def _btcv(folder: Path) -> Iterator[Case]:
    for volume, segmentation in _pairs(folder, "img/img*", ("img", "label")):
        yield "train", volume, segmentation, False


def _lits(folder: Path, fraction: float, seed: int) -> Iterator[Case]:
    pairs = _pairs(folder, "volume-*", ("volume", "segmentation"))
    if len(pairs) < 2:
        raise InputError(f"{folder} holds one volume; validation and test need at least one each.")
    count = min(max(1, round(fraction * len(pairs))), len(pairs) - 1)
    chosen = np.random.default_rng(seed).choice(len(pairs), size=count, replace=False)
    for index, (volume, segmentation) in enumerate(pairs):
        yield "valid" if index in chosen else "test", volume, segmentation, True


def _cut(case: Case, options: LiverVolumeOptions, target: Path) -> Iterator[tuple[str, str, str, str, int]]:
    """Write the slices of one patient; yields (split, label, file name, subject, slice)."""
    split, path, segmentation_path, is_lits = case
    volume, labels = (_canonical(file) for file in (path, segmentation_path))
    if volume.shape != labels.shape:
        raise InputError(f"{segmentation_path} has the shape {labels.shape}, its volume {path} has {volume.shape}.")
    liver = labels > 0 if is_lits else labels == BTCV_LIVER
    lesion = labels == LITS_LESION if is_lits else np.zeros(labels.shape, dtype=bool)
    subject = path.name.split(".")[0]
    covered = np.flatnonzero(liver.mean(axis=(0, 1)) >= options.min_liver)[:: options.slice_step]
    for index in covered:
        name = f"{split}_{subject}_{index:03d}"
        picture = liver_slice(volume[:, :, index].T, liver[:, :, index].T, LITS_WINDOW if is_lits else None)
        Image.fromarray(picture).save(target / f"{name}.png")
        mask = np.flipud(lesion[:, :, index].T)
        Image.fromarray(mask.astype(np.uint8) * 255).save(target / f"{name}_mask.png")
        yield split, "anomalous" if mask.any() else "normal", name, subject, int(index)


def _canonical(path: Path) -> Volume:
    """Voxels [right, front, top] of a volume."""
    volume = open_volume(path)
    canonical: Volume = volume.geometry(AXES["axial"]).to_canonical(volume.voxels())
    return canonical


def liver_slice(
    values: npt.NDArray[np.float32], liver: npt.NDArray[np.bool_], window: tuple[float, float] | None
) -> Grey:
    """Clip, scale to 0..255, keep the liver, flip, equalise without the zero bin, compress the lower range.

    ``values`` and ``liver`` [h, w]; ``window`` in Hounsfield units or None. Returns uint8 [h, w].
    """
    clipped = values if window is None else np.clip(values, *window)
    low, high = float(clipped.min()), float(clipped.max())
    grey = (clipped - low) / ((high - low) or 1.0) * 255
    kept = np.flipud(grey.astype(np.uint8) * liver)
    counts = np.bincount(kept.ravel(), minlength=256)
    counts[0] = 0
    cumulative = counts.cumsum() / max(1, counts.sum())
    equalised = np.floor(255 * cumulative)[kept] * (kept > 0)
    low_range = (equalised > 0) & (equalised < 150)
    result: Grey = np.where(low_range, np.floor(equalised / 150 * 120 + 30), equalised).astype(np.uint8)
    return result
