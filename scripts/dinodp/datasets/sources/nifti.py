"""Folders ``train``, ``valid``, ``test`` of NIfTI volumes, cut into 8-bit slices; segmentations lie beside them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dinodp.datasets.geometry import VolumeGeometry, same_grid
from dinodp.datasets.manifest import SPLITS, image_row, make_manifest
from dinodp.datasets.sources.options import REQUIRED
from dinodp.datasets.volumes import (
    AXES,
    SUFFIXES,
    Foreground,
    grey_slice,
    labelled,
    open_volume,
    require_foreground,
    save_slice,
    slice_indices,
    window_of,
)
from dinodp.errors import InputError, require_known
from dinodp.jobs.files import replaced_folder
from dinodp.jobs.logs import progress

SOURCE = "nifti"
OPTIONS: dict[str, Any] = {
    "root": REQUIRED,
    "image_suffix": "_t1",  # <subject><image_suffix>.nii.gz
    "mask_suffix": "_seg",  # <subject><mask_suffix>.nii.gz beside it, where there is one
    "axis": "axial",
    "side": None,  # pixels of the square to which slices are padded; None: as large as the largest volume needs
    "slice_step": 1,  # every n-th of the slices with enough foreground
    "min_foreground": 0.1,  # share of the padded slice
    "background": 0.0,  # foreground are the voxels of another value
    "window_percentiles": [0.5, 99.5],  # of the foreground of each volume, to 0 and 255
}


def prepare(options: Mapping[str, Any], folder: Path) -> pd.DataFrame:
    """Write slices and masks as PNG below ``folder/slices``.

    Volumes are reoriented to canonical axes; all slices are padded to one square.
    A slice is anomalous when its mask is not empty; a test volume without segmentation is refused, a training or
    validation volume without one is normal. Raises InputError for whatever is wrong with the volumes.
    """
    require_known("axis", options["axis"], AXES)
    _check(options)
    volumes = {split: _volumes(Path(options["root"]) / split, options["image_suffix"]) for split in SPLITS}
    axis = AXES[options["axis"]]
    shapes = [open_volume(path).geometry(axis).stack_shape for paths in volumes.values() for path in paths]
    needed = max(length for shape in shapes for length in shape[1:])
    side = options["side"] or needed
    if side < needed:
        raise InputError(f"side is {side} pixels, but the largest slice needs {needed}.")
    with replaced_folder(folder / "slices") as slices:
        tasks = progress([(split, path) for split, paths in volumes.items() for path in paths], "Slices", unit="volume")
        written = [row for split, path in tasks for row in _cut(split, path, options, side, slices)]
    return make_manifest(
        image_row(split, label, folder / "slices" / f"{name}.png", _mask_file(folder / "slices", name), subject, index)
        for split, label, name, subject, index in written
    )


def _check(options: Mapping[str, Any]) -> None:
    if not isinstance(options["slice_step"], int) or options["slice_step"] < 1:
        raise InputError(f"slice_step must be a positive integer, not {options['slice_step']!r}.")
    percentiles = options["window_percentiles"]
    if len(percentiles) != 2 or not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise InputError(f"window_percentiles must be two rising numbers from 0 to 100, not {percentiles!r}.")


def _volumes(folder: Path, suffix: str) -> list[Path]:
    """The volumes of a split, by name."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; the root must hold {', '.join(SPLITS)}.")
    found = sorted(path for end in SUFFIXES for path in folder.glob(f"*{suffix}{end}"))
    if not found:
        raise InputError(f"the folder {folder} holds no volume named *{suffix}.nii.gz (key image_suffix).")
    return found


def _mask_file(slices: Path, name: str) -> Path | None:
    path = slices / f"{name}_mask.png"
    return path if path.is_file() else None


def _segmentation(path: Path, options: Mapping[str, Any], split: str) -> Path | None:
    """The segmentation beside a volume."""
    subject = _subject(path, options["image_suffix"])
    for end in SUFFIXES:
        if (mask := path.with_name(f"{subject}{options['mask_suffix']}{end}")).is_file():
            return mask
    if split == "test":
        raise InputError(
            f"the test volume {path} has no segmentation {subject}{options['mask_suffix']}.nii.gz beside it "
            "(a normal one needs an empty segmentation)."
        )
    return None


def _subject(path: Path, suffix: str) -> str:
    end = next(end for end in SUFFIXES if path.name.endswith(end))
    return path.name[: -len(suffix + end)]


def _cut(
    split: str, path: Path, options: Mapping[str, Any], side: int, slices: Path
) -> Iterator[tuple[str, str, str, str, int]]:
    """Write the slices of one volume; yields (split, label, file name without suffix, subject, slice)."""
    volume, axis = open_volume(path), AXES[options["axis"]]
    stack = volume.stack(axis)
    foreground = stack != options["background"]
    require_foreground(foreground, path)
    window = window_of(stack[foreground], options["window_percentiles"], path)
    mask = _mask(path, _segmentation(path, options, split), volume.geometry(axis))
    subject = _subject(path, options["image_suffix"])
    indices = slice_indices(foreground, options["slice_step"], options["min_foreground"], side**2)
    if not indices:
        raise InputError(
            f"{path} has no slice whose foreground covers {options['min_foreground']:.0%} (key min_foreground)."
        )
    for index in indices:
        name = f"{split}_{subject}_{index:03d}"
        save_slice(grey_slice(stack[index], foreground[index], window), side, slices / f"{name}.png")
        label = "normal"
        if mask is not None:
            label = "anomalous" if mask[index].any() else "normal"
            save_slice(mask[index].astype(np.uint8) * 255, side, slices / f"{name}_mask.png")
        yield split, label, name, subject, index


def _mask(path: Path, segmentation: Path | None, geometry: VolumeGeometry) -> Foreground | None:
    """Where the segmentation is not zero, as upright slices [slice, row, column] of the volume."""
    if segmentation is None:
        return None
    opened = open_volume(segmentation)
    own = opened.geometry(geometry.axis)
    if not same_grid(own, geometry):
        raise InputError(
            f"the segmentation {segmentation} does not lie on the grid of {path}: "
            f"{own.stack_shape} against {geometry.stack_shape} slices, rows and columns, or another affine."
        )
    return labelled(opened.stack(geometry.axis), segmentation)
