"""NIfTI volumes cut into 8-bit slices of one size, with what is known of each volume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from dinodp.datasets.geometry import Affine, VolumeGeometry, common_frame, direction_in_words, same_grid
from dinodp.datasets.manifest import image_row, make_manifest
from dinodp.datasets.sources.base import SliceOptions
from dinodp.datasets.volumes import (
    AXES,
    SUFFIXES,
    Foreground,
    NiftiVolume,
    grey_slice,
    labelled,
    open_mask,
    open_volume,
    require_foreground,
    require_one_spacing,
    resampled_size,
    resized_slice,
    save_slice,
    slice_indices,
    window_of,
)
from dinodp.errors import InputError
from dinodp.images import resize_mask
from dinodp.jobs.files import replaced_folder
from dinodp.jobs.logs import logger, progress
from dinodp.options.base import option

LARGEST_SIDE = 8192  # pixels of a slice


class VolumeOptions(SliceOptions):
    """NIfTI volumes, cut into slices."""

    READS: ClassVar[tuple[str, ...]] = SUFFIXES

    axis: Literal["sagittal", "coronal", "axial"] = option("axial", "How volumes are cut.")
    side: int | None = option(
        None,
        "Side of the square to which slices are padded; absent: as large as the largest volume needs.",
        unit="pixels",
        ge=1,
    )
    background: float = option(0.0, "Foreground are the voxels of another value.")


@dataclass(frozen=True)
class LabelledVolume:
    """A volume of a split. A slice is anomalous where the ``mask`` is not empty; without one, if the volume ``label``
    is."""

    split: str
    path: Path
    name: str  # unique within the split
    subject: str
    mask: Path | None = None
    label: str = "normal"


def cut_volumes(volumes: Sequence[LabelledVolume], options: VolumeOptions, folder: Path) -> pd.DataFrame:
    """Write slices and masks as PNG below ``folder/slices``; the manifest of them.

    Volumes are reoriented to canonical axes, of which oblique ones share one choice; all slices are padded to one
    square. Raises InputError for whatever is wrong with the volumes.
    """
    cutting = Cutting.of([volume.path for volume in volumes], options)
    with replaced_folder(folder / "slices") as slices:
        tasks = progress(volumes, "Slices", unit="volume")
        written = [row for volume in tasks for row in _cut(volume, cutting, slices)]
    return make_manifest(
        image_row(split, label, folder / "slices" / f"{name}.png", _mask_file(folder / "slices", name), subject, index)
        for split, label, name, subject, index in written
    )


@dataclass(frozen=True)
class Cutting:
    """How all volumes of a data set are cut: ``side`` of the padded slices in pixels, the common ``frame``."""

    options: VolumeOptions
    side: int
    frame: Affine | None

    @classmethod
    def of(cls, paths: Sequence[Path], options: VolumeOptions) -> Cutting:
        """From the headers. Raises InputError for pixels of several sizes that nothing makes one."""
        opened, axis = [open_volume(path) for path in paths], AXES[options.axis]
        frame = common_frame([volume.affine for volume in opened])
        if frame is not None:
            logger.info("The volumes are oblique, %s.", direction_in_words(frame, options.axis))
        placed = [volume.geometry(axis, frame) for volume in opened]
        if options.spacing is None:
            require_one_spacing(paths, [geometry.spacing[1:] for geometry in placed])
        needed = max(length for geometry in placed for length in _resampled(geometry, options.spacing))
        side = options.side or needed
        if side < needed:
            raise InputError(f"side is {side} pixels, but the largest slice needs {needed}.")
        if side > LARGEST_SIDE:
            raise InputError(f"the slices would have {side} x {side} pixels; at most {LARGEST_SIDE} are allowed.")
        return cls(options, side, frame)

    def geometry(self, volume: NiftiVolume) -> VolumeGeometry:
        """Where a volume lies."""
        return volume.geometry(AXES[self.options.axis], self.frame)


def _resampled(geometry: VolumeGeometry, spacing: float | None) -> tuple[int, int]:
    """Height and width of a slice in pixels of ``spacing`` mm."""
    return resampled_size(geometry.stack_shape[1:], geometry.spacing[1:], spacing)


def _mask_file(slices: Path, name: str) -> Path | None:
    path = slices / f"{name}_mask.png"
    return path if path.is_file() else None


def _cut(given: LabelledVolume, cutting: Cutting, slices: Path) -> Iterator[tuple[str, str, str, str, int]]:
    """Write the slices of one volume; yields (split, label, file name without suffix, subject, slice)."""
    volume, options, path = open_volume(given.path), cutting.options, given.path
    geometry = cutting.geometry(volume)
    stack = geometry.to_stack(volume.voxels())
    foreground = stack != options.background
    require_foreground(foreground, path)
    window = window_of(stack[foreground], options.window_percentiles, path)
    mask = _mask(path, given.mask, geometry)
    size = _resampled(geometry, options.spacing)
    area = cutting.side**2 * foreground[0].size / (size[0] * size[1])  # of the padded slice, in pixels as stored
    indices = slice_indices(foreground, options.slice_step, options.min_foreground, area)
    if not indices:
        raise InputError(
            f"{path} has no slice whose foreground covers {options.min_foreground:.0%} (key min_foreground)."
        )
    for index in indices:
        name = f"{given.split}_{given.name}_{index:03d}"
        grey = resized_slice(grey_slice(stack[index], foreground[index], window), size)
        save_slice(grey, cutting.side, slices / f"{name}.png")
        label = given.label
        if mask is not None:
            marked = resize_mask(mask[index].astype(np.uint8) * 255, size)
            label = "anomalous" if marked.any() else "normal"
            save_slice(marked, cutting.side, slices / f"{name}_mask.png")
        yield given.split, label, name, given.subject, index


def _mask(path: Path, segmentation: Path | None, geometry: VolumeGeometry) -> Foreground | None:
    """Where the segmentation is not zero, as upright slices [slice, row, column] of the volume."""
    if segmentation is None:
        return None
    opened = open_mask(segmentation)
    own = opened.geometry(geometry.axis, geometry.frame)
    if not same_grid(own, geometry):
        raise InputError(
            f"the segmentation {segmentation} does not lie on the grid of {path}: "
            f"{own.stack_shape} against {geometry.stack_shape} slices, rows and columns, or another affine."
        )
    return labelled(own.to_stack(opened.voxels()), segmentation)
