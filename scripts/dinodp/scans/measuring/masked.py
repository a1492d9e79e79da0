"""Maps beside lesion masks and foregrounds: which belongs to which, on one grid of pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dinodp.datasets.boxes import Box, BoxFile, pixels_in
from dinodp.datasets.subjects import subjects_of
from dinodp.errors import InputError
from dinodp.images import anomalous_in, resize_mask
from dinodp.metrics.anomaly_maps import anomaly_map
from dinodp.scans.measuring.scored import ALL, SCORED, Flags, Map, MapSource, ScoredScan
from dinodp.scans.reading.masks import (
    MaskNaming,
    find_masks,
    mask_files,
    read_array_mask,
    read_mask_values,
    read_volume_mask,
)

Size = Literal["mask", "map"]  # which of the two keeps its size; the other is resized


@dataclass(frozen=True)
class LabelledScans:
    """The scans that are evaluated: names, masks, subjects, and where foregrounds lie, if they are given."""

    masks: dict[str, Path | None]
    subjects: list[str] = field(default_factory=list)
    foregrounds: dict[str, Path] | None = None
    metadata: Path | None = None
    boxes: BoxFile | None = None
    unused: tuple[str, ...] = ()  # masks, or images with boxes, of which there is no map

    @classmethod
    def of(
        cls, names: Sequence[str], masks: Path, naming: MaskNaming, subject_pattern: str | None,
        foreground: Path | None = None, metadata: Path | None = None,
    ) -> "LabelledScans":  # fmt: skip
        """Raises InputError as `find_masks` does, for a pattern that is none, and for a scan without foreground."""
        found = find_masks(masks, list(names), naming)
        subjects = subjects_of(list(found), subject_pattern)
        foregrounds = None if foreground is None else find_foregrounds(foreground, list(found))
        known = {name for name in mask_files(masks) if name.endswith(naming.mask_suffix)}
        unused = tuple(sorted(known - set(map(naming.mask_name, names))))
        return cls(found, subjects, foregrounds, metadata, unused=unused)

    @classmethod
    def with_boxes(
        cls, names: Sequence[str], boxes: BoxFile, naming: MaskNaming, subject_pattern: str | None,
        foreground: Path | None = None, metadata: Path | None = None,
    ) -> "LabelledScans":  # fmt: skip
        """As `of`, with boxes in the place of masks. Raises InputError as `chosen_boxes` does."""
        unused = tuple(sorted(set(boxes.boxes) - set(map(naming.mask_name, names))))
        boxes.boxes = chosen_boxes(boxes, names, naming)
        found: dict[str, Path | None] = dict.fromkeys(boxes.boxes)
        foregrounds = None if foreground is None else find_foregrounds(foreground, list(found))
        return cls(found, subjects_of(list(found), subject_pattern), foregrounds, metadata, boxes, unused)

    def foreground(self, name: str) -> Path | None:
        """Where the foreground of a scan lies; None where none was asked for."""
        return None if self.foregrounds is None else self.foregrounds[name]


def chosen_boxes(file: BoxFile, names: Sequence[str], naming: MaskNaming) -> dict[str, list[Box]]:
    """The boxes of each scan. Raises InputError for one that the file does not name, where that is refused."""
    missing = [name for name in names if naming.mask_name(name) not in file.boxes]
    if missing and (naming.without == "refuse" or len(missing) == len(names)):
        raise InputError(
            f"{len(missing)} of {len(names)} maps are not named in {file.path}, for example {missing[0]}: say with "
            "--without-mask whether they are healthy or to be skipped."
        )
    file.sizes = {name: file.sizes[own] for name in names if (own := naming.mask_name(name)) in file.sizes}
    kept = [name for name in names if name not in missing or naming.without == "healthy"]
    return {name: file.boxes.get(naming.mask_name(name), []) for name in kept}


def find_foregrounds(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The file of each scan. Raises InputError for a scan without one."""
    known = mask_files(folder)
    if missing := [name for name in names if name not in known]:
        raise InputError(
            f"{len(missing)} of {len(names)} scans have no file in the folder of foregrounds {folder}, for example "
            f"{missing[0]} (--foreground)."
        )
    return {name: known[name] for name in names}


@dataclass(frozen=True)
class MaskedScan:
    """``scores``, ``scored``, ``values`` of the mask (uint8) and ``foreground`` [slice, H, W] of one scan."""

    scan: ScoredScan
    values: npt.NDArray[np.uint8]
    foreground: Flags | None
    parts: list[tuple[slice, ...]] | None = None  # places of boxes [row, column], where there are no masks

    @property
    def scores(self) -> Map:
        """The map."""
        return self.scan.scores

    def lesion(self, rule: str) -> Flags:
        """What is anomalous under a mask rule."""
        return anomalous_in(self.values, rule)

    def counted(self, pixels: str) -> Flags:
        """Which pixels count, whether normal or not."""
        return counted(self.scan, self.foreground, pixels)


def counted(scan: ScoredScan, foreground: Flags | None, pixels: str) -> Flags:
    """All pixels, those that were scored, or of these those of the foreground."""
    if pixels == ALL:
        return np.ones(scan.scores.shape, dtype=bool)
    return scan.scored if pixels == SCORED or foreground is None else scan.scored & foreground


def boxed(source: MapSource, name: str, boxes: BoxFile, foreground: Path | None) -> MaskedScan:
    """One image beside its boxes. Raises InputError for a volume, another size, and a box outside of the map."""
    scan = source.scan(name)
    if scan.is_volume:
        raise InputError(f"The map of {name} is a volume: boxes are of images.")
    shape = (scan.scores.shape[1], scan.scores.shape[2])
    boxes.require_size(name, shape, "map")
    inside = pixels_in(boxes.boxes[name], shape, name)[None]
    parts: list[tuple[slice, ...]] = [box.pixels() for box in boxes.boxes[name]]
    shown = None if foreground is None else read_foreground(foreground, scan)
    return MaskedScan(scan, inside.astype(np.uint8) * 255, shown, parts)


def masked(source: MapSource, name: str, mask: Path | None, foreground: Path | None, size: Size | None) -> MaskedScan:
    """One scan beside its mask (None: no lesion). Raises InputError when one cannot be read or they do not fit."""
    scan = source.scan(name)
    values = None if mask is None else _mask_values(mask, scan, size)
    if values is not None and values.shape != scan.scores.shape:
        if size == "mask":
            scan = _enlarged(scan, values.shape[1:])
        else:
            values = resize_mask(values[0], scan.scores.shape[1:])[None]
    if values is None:
        values = np.zeros(scan.scores.shape, dtype=np.uint8)
    return MaskedScan(scan, values, None if foreground is None else read_foreground(foreground, scan))


def _mask_values(path: Path, scan: ScoredScan, size: Size | None) -> npt.NDArray[np.uint8]:
    if scan.geometry is not None:
        return read_volume_mask(path, scan.geometry).astype(np.uint8) * 255
    if path.name.lower().endswith(".npy"):
        values = read_array_mask(path)
    elif scan.is_volume:
        raise InputError(f"The mask {path} of a map that is a NumPy array of slices must be such an array too.")
    else:
        values = read_mask_values(path)[None]
    if values.shape != scan.scores.shape and (size is None or scan.is_volume or len(values) > 1):
        sizes = [" x ".join(map(str, shape[shape[0] == 1 :])) for shape in (values.shape, scan.scores.shape)]
        raise InputError(
            f"The mask {path} has {sizes[0]} pixels, its map {sizes[1]}."
            + ("" if scan.is_volume else " To resize one of them, say which keeps its size (--size).")
        )
    return values


def _enlarged(scan: ScoredScan, shape: tuple[int, ...]) -> ScoredScan:
    scores = anomaly_map(scan.scores[0], (shape[0], shape[1]))[None]
    return replace(scan, scores=scores, scored=np.ones(scores.shape, dtype=bool))


def read_foreground(path: Path, scan: ScoredScan) -> Flags:
    """What is not 0 in a mask of the body or in the scan itself, and the holes that it encloses within a slice."""
    if scan.geometry is not None:
        found = read_volume_mask(path, scan.geometry, labels=False)
    elif path.name.lower().endswith(".npy"):
        found = read_array_mask(path, labels=False) > 0
    else:
        found = resize_mask(read_mask_values(path, labels=False), scan.scores.shape[1:])[None] > 0
    if found.shape != scan.scores.shape:
        raise InputError(f"The foreground {path} has the shape {found.shape}, its map {scan.scores.shape}.")
    if not found.any():
        raise InputError(f"The foreground {path} is empty: all of its pixels are 0.")
    return np.stack([ndimage.binary_fill_holes(part) for part in found])
