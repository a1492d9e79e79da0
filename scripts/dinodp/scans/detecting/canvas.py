"""From a scan to pictures for the backbone, and from patch scores back to its voxels.

Every slice of a volume is placed on one square canvas of fixed size in mm, the foreground in its middle, so that
anatomy has the same scale in every scan whatever its spacing; an image is used whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from dinodp.backbones import Backbone
from dinodp.datasets.volumes import to_grey
from dinodp.errors import InputError
from dinodp.scans.detecting.healthy import LARGEST_CANVAS, HealthyRange, bounds
from dinodp.scans.reading.scan import Scan

Picture = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]
SAME_SPACING = 0.01  # relative difference below which pixels are copied, not interpolated


@dataclass(frozen=True)
class Placement:
    """Where a slice lies on its canvas, in pixels of the canvas; ``size`` is that of the resized slice.

    A canvas of ``side`` None is the slice itself.
    """

    size: tuple[int, int]
    offset: tuple[int, int]
    side: int | None

    @classmethod
    def of(cls, scan: Scan, healthy: HealthyRange) -> "Placement":
        """An image stays as it is; a volume's foreground comes to the middle of the field of view.

        Raises InputError for a slice that would be too large at that scale.
        """
        height, width = scan.values.shape[1:3]
        if scan.spacing is None:
            return cls((height, width), (0, 0), None)
        side = int(np.ceil(healthy.side / healthy.pixel))
        size, offset = [], []
        for length, spacing, (first, last) in zip(
            (height, width), scan.spacing[1:], bounds(scan.foreground), strict=True
        ):
            factor = spacing / healthy.pixel
            resized = length if abs(factor - 1) < SAME_SPACING else max(1, round(length * factor))
            if resized > LARGEST_CANVAS:
                raise InputError(
                    f"{scan.path}: its slices would measure {resized} pixels at the scale of the model, of which at "
                    f"most {LARGEST_CANVAS} are allowed: correct its voxel sizes, or cut it."
                )
            size.append(resized)
            offset.append(round((side - (first + last + 1) * resized / length) / 2))
        return cls((size[0], size[1]), (offset[0], offset[1]), side)

    def place(self, picture: Picture) -> Picture:
        """The canvas uint8 [side, side, 3] of a slice [H, W] or [H, W, 3]; what lies outside is cut off."""
        if picture.shape[:2] != self.size:
            resized = Image.fromarray(picture).resize(self.size[::-1], Image.Resampling.BICUBIC)
            picture = np.asarray(resized, dtype=np.uint8)
        coloured = picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
        if self.side is None:
            return np.ascontiguousarray(coloured)
        canvas = np.zeros((self.side, self.side, 3), dtype=np.uint8)
        ranges = [_overlap(*item, self.side) for item in zip(self.size, self.offset, strict=True)]
        (to_rows, from_rows), (to_columns, from_columns) = ranges
        canvas[to_rows, to_columns] = coloured[from_rows, from_columns]
        return canvas

    def positions(self, shape: tuple[int, int], backbone: Backbone) -> list[npt.NDArray[np.float64]]:
        """Position in the patch grid of each row and of each column of the slice; patch 0 has its centre at 0."""
        found = []
        for centres, whole in zip(self._centres(shape), self._canvas, strict=True):
            shown = int(backbone.resolution * whole / min(self._canvas))  # as `resize_short_side` has it
            found.append(centres * shown / whole / backbone.patch_size - 0.5)
        return found

    def shown(self, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Which pixels [H, W] of the slice lie on the canvas."""
        rows, columns = (
            (centres > 0) & (centres < whole)
            for centres, whole in zip(self._centres(shape), self._canvas, strict=True)
        )
        return np.outer(rows, columns)

    @property
    def _canvas(self) -> tuple[int, int]:
        return self.size if self.side is None else (self.side, self.side)

    def _centres(self, shape: tuple[int, int]) -> list[npt.NDArray[np.float64]]:
        """Centres of the rows and of the columns of the slice, in pixels of the canvas."""
        return [
            (np.arange(length) + 0.5) * resized / length + offset
            for length, resized, offset in zip(shape, self.size, self.offset, strict=True)
        ]


def _overlap(length: int, offset: int, side: int) -> tuple[slice, slice]:
    """Range on the canvas and range in the slice of what both have."""
    first, last = max(0, offset), min(side, offset + length)
    return slice(first, max(first, last)), slice(first - offset, max(first, last) - offset)


def slice_choice(foreground: npt.NDArray[np.bool_], minimum: float, step: int, canvas_area: float) -> list[int]:
    """Every ``step``-th slice, and the last, of those whose foreground covers ``minimum`` of ``canvas_area``; else the
    fullest one."""
    areas = foreground.sum(axis=(1, 2))
    full = np.flatnonzero(areas >= minimum * canvas_area)
    if not len(full):
        return [int(areas.argmax())]
    return sorted({*(int(index) for index in full[::step]), int(full[-1])})


def pictures(
    scan: Scan, chosen: Sequence[int], placement: Placement, window: tuple[float, float]
) -> Iterator[Picture]:
    """Canvases of the chosen slices; the background of a volume is black."""
    for index in chosen:
        grey = to_grey(scan.values[index], *window)
        shown = scan.foreground[index] if grey.ndim == 2 else scan.foreground[index][:, :, None]
        yield placement.place(np.ascontiguousarray(grey * shown) if scan.kind == "volume" else grey)


def interpolation(positions: npt.NDArray[np.float64], n: int) -> Map:
    """Weights [len(positions), n] of linear interpolation between points 0 .. n-1; constant beyond the ends."""
    clipped = np.clip(positions, 0, n - 1)
    below = np.floor(clipped).astype(int).clip(0, max(0, n - 2))
    share = (clipped - below).astype(np.float32)
    weights = np.zeros((len(positions), n), dtype=np.float32)
    rows = np.arange(len(positions))
    weights[rows, below] = 1 - share
    if n > 1:
        weights[rows, below + 1] += share
    return weights


def patches_with(
    foreground: npt.NDArray[np.bool_], positions: Sequence[npt.NDArray[np.float64]], grid: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Which patches [slice, row, col] of a ``grid`` show some of the foreground [slice, H, W]."""
    down, across = (_touched(position, n) for position, n in zip(positions, grid, strict=True))
    found: npt.NDArray[np.bool_] = down.T @ foreground @ across > 0
    return found


def _touched(positions: npt.NDArray[np.float64], n: int) -> Map:
    """1 where a row or column [len(positions)] lies in one of n patches, be it in part, else 0."""
    reach = (1 + positions[1] - positions[0]) / 2
    touched: npt.NDArray[np.bool_] = np.abs(positions[:, None] - np.arange(n)) < reach - 1e-6
    return touched.astype(np.float32)


def enlarge(
    patch_maps: Map, positions: Sequence[npt.NDArray[np.float64]], chosen: Sequence[int], n_slices: int
) -> Map:
    """Anomaly map [slice, H, W] from patch scores [chosen, row, col]: bilinear in the slice, linear between slices.

    Slices before the first and after the last chosen one are zero.
    """
    down, across = (
        interpolation(position, n) for position, n in zip(positions, patch_maps.shape[1:], strict=True)
    )
    enlarged = np.zeros((n_slices, len(down), len(across)), dtype=np.float32)
    inside = range(chosen[0], chosen[-1] + 1)
    between = interpolation(np.interp(inside, chosen, np.arange(len(chosen))), len(chosen))
    for index, weights in zip(inside, between, strict=True):
        used = np.flatnonzero(weights)
        grid = np.tensordot(weights[used], patch_maps[used], axes=1)
        enlarged[index] = down @ grid @ across.T
    return enlarged
