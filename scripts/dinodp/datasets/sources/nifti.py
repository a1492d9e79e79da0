"""Folders ``train``, ``valid``, ``test`` of NIfTI volumes, cut into 8-bit slices; segmentations lie beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from dinodp.datasets.geometry import Affine, VolumeGeometry, common_frame, direction_in_words, same_grid
from dinodp.datasets.manifest import SPLITS, image_row, make_manifest
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
from dinodp.datasets.walking import Found, files_in, say_beside, stem_of
from dinodp.errors import InputError
from dinodp.images import resize_mask
from dinodp.jobs.files import replaced_folder
from dinodp.jobs.logs import logger, progress
from dinodp.options.base import option

LARGEST_SIDE = 8192  # pixels of a slice


class NiftiOptions(SliceOptions):
    """NIfTI volumes in folders train, valid and test, cut into slices."""

    READS: ClassVar[tuple[str, ...]] = SUFFIXES

    source: Literal["nifti"] = "nifti"
    image_suffix: str = option("_t1", "Volumes are `<subject><image_suffix>.nii.gz`.")
    mask_suffix: str = option("_seg", "Segmentations are `<subject><mask_suffix>.nii.gz` beside them.")
    axis: Literal["sagittal", "coronal", "axial"] = option("axial", "How volumes are cut.")
    side: int | None = option(
        None,
        "Side of the square to which slices are padded; absent: as large as the largest volume needs.",
        unit="pixels",
        ge=1,
    )
    background: float = option(0.0, "Foreground are the voxels of another value.")

    def prepare(self, folder: Path) -> pd.DataFrame:
        """Write slices and masks as PNG below ``folder/slices``.

        Volumes are reoriented to canonical axes, of which oblique ones share one choice; all slices are padded to one
        square.
        A slice is anomalous when its mask is not empty; a test volume without segmentation is refused, a training or
        validation volume without one is normal. Raises InputError for whatever is wrong with the volumes.
        """
        volumes = [
            (split, path)
            for split in SPLITS
            for path in _volumes(Path(self.root) / split, self.image_suffix, self.mask_suffix)
        ]
        cutting = Cutting.of([path for _, path in volumes], self)
        say_beside(Path(self.root), SPLITS)
        with replaced_folder(folder / "slices") as slices:
            tasks = progress(volumes, "Slices", unit="volume")
            written = [row for split, path in tasks for row in _cut(split, path, cutting, slices)]
        return make_manifest(
            image_row(
                split, label, folder / "slices" / f"{name}.png", _mask_file(folder / "slices", name), subject, index
            )
            for split, label, name, subject, index in written
        )


@dataclass(frozen=True)
class Cutting:
    """How all volumes of a data set are cut: ``side`` of the padded slices in pixels, the common ``frame``."""

    options: NiftiOptions
    side: int
    frame: Affine | None

    @classmethod
    def of(cls, paths: Sequence[Path], options: NiftiOptions) -> Cutting:
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


def _volumes(folder: Path, suffix: str, mask_suffix: str) -> list[Path]:
    """The volumes of a split, by name."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; the root must hold {', '.join(SPLITS)}.")
    found = _without_masks(files_in(folder, SUFFIXES), suffix, mask_suffix)
    found.where(lambda path: _ends(path, suffix), "volume of another name")
    if not found.files:
        left = f"; it holds {found.left_in_words()}" if found.left_in_words() else ""
        raise InputError(f"the folder {folder} holds no volume named *{suffix}.nii.gz (key image_suffix){left}.")
    return found.say()


def _without_masks(found: Found, suffix: str, mask_suffix: str) -> Found:
    """Without the segmentations that belong to a volume."""
    masks = {path for path in found.files if _ends(path, mask_suffix) and not (suffix and _ends(path, suffix))}
    subjects = {_subject(path, suffix) for path in found.files if path not in masks and _ends(path, suffix)}
    found.files = [path for path in found.files if path not in masks or _subject(path, mask_suffix) not in subjects]
    return found


def _ends(path: Path, suffix: str) -> bool:
    return stem_of(path.name).endswith(suffix)


def _mask_file(slices: Path, name: str) -> Path | None:
    path = slices / f"{name}_mask.png"
    return path if path.is_file() else None


def _segmentation(path: Path, options: NiftiOptions, split: str) -> Path | None:
    """The segmentation beside a volume."""
    subject = _subject(path, options.image_suffix)
    for end in (*SUFFIXES, *map(str.upper, SUFFIXES)):
        if (mask := path.with_name(f"{subject}{options.mask_suffix}{end}")).is_file():
            return mask
    if split == "test":
        raise InputError(
            f"the test volume {path} has no segmentation {subject}{options.mask_suffix}.nii.gz beside it "
            "(a normal one needs an empty segmentation)."
        )
    return None


def _subject(path: Path, suffix: str) -> str:
    return stem_of(path.name).removesuffix(suffix)


def _cut(split: str, path: Path, cutting: Cutting, slices: Path) -> Iterator[tuple[str, str, str, str, int]]:
    """Write the slices of one volume; yields (split, label, file name without suffix, subject, slice)."""
    volume, options = open_volume(path), cutting.options
    geometry = cutting.geometry(volume)
    stack = geometry.to_stack(volume.voxels())
    foreground = stack != options.background
    require_foreground(foreground, path)
    window = window_of(stack[foreground], options.window_percentiles, path)
    mask = _mask(path, _segmentation(path, options, split), geometry)
    subject = _subject(path, options.image_suffix)
    size = _resampled(geometry, options.spacing)
    area = cutting.side**2 * foreground[0].size / (size[0] * size[1])  # of the padded slice, in pixels as stored
    indices = slice_indices(foreground, options.slice_step, options.min_foreground, area)
    if not indices:
        raise InputError(
            f"{path} has no slice whose foreground covers {options.min_foreground:.0%} (key min_foreground)."
        )
    for index in indices:
        name = f"{split}_{subject}_{index:03d}"
        grey = resized_slice(grey_slice(stack[index], foreground[index], window), size)
        save_slice(grey, cutting.side, slices / f"{name}.png")
        label = "normal"
        if mask is not None:
            marked = resize_mask(mask[index].astype(np.uint8) * 255, size)
            label = "anomalous" if marked.any() else "normal"
            save_slice(marked, cutting.side, slices / f"{name}_mask.png")
        yield split, label, name, subject, index


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
