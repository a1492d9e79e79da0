"""From the axes of a file to a stack of upright slices, and back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dinodp.errors import InputError

Array = npt.NDArray[Any]
SAME_GRID_MM = 0.01
CANONICAL = np.array([[0, 1], [1, 1], [2, 1]])  # axes run to the right, front and top


@dataclass(frozen=True)
class VolumeGeometry:
    """Where the voxels of a volume lie.

    ``shape`` is that of one volume on disk (two or three dimensions), ``affine`` [4, 4] takes its voxel indices to mm
    (right, front, top positive), ``axis`` is the canonical axis along which it is sliced: 0 sagittal, 1 coronal, 2
    axial. ``header`` is that of the NIfTI file, if there was one.
    """

    shape: tuple[int, ...]
    affine: npt.NDArray[np.float64]
    axis: int
    header: Any = None

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between slices, between rows and between columns of the upright slices."""
        orientation, sizes = self._orientation(), _voxel_sizes(self.affine)
        canonical = [0.0, 0.0, 0.0]
        for axis, size in zip(orientation[:, 0].astype(int), sizes, strict=True):
            canonical[axis] = float(size)
        columns, rows = (size for axis, size in enumerate(canonical) if axis != self.axis)
        return canonical[self.axis], rows, columns

    @property
    def canonical_affine(self) -> npt.NDArray[np.float64]:
        """Affine [4, 4] of the voxels once their axes run to the right, front and top."""
        turn = _orientations().inv_ornt_aff(self._orientation(), self._three_lengths)
        found: npt.NDArray[np.float64] = self.affine @ turn
        return found

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def stack_shape(self) -> tuple[int, int, int]:
        """Shape of what `to_stack` gives: slices, rows, columns."""
        lengths = [0, 0, 0]
        for axis, length in zip(self._orientation()[:, 0].astype(int), self._three_lengths, strict=True):
            lengths[axis] = length
        columns, rows = (length for axis, length in enumerate(lengths) if axis != self.axis)
        return lengths[self.axis], rows, columns

    def to_canonical(self, voxels: Array) -> Array:
        """Voxels as on disk with their axes turned to run to the right, front and top."""
        canonical: Array = _orientations().apply_orientation(voxels.reshape(self._three_lengths), self._orientation())
        return canonical

    def to_stack(self, voxels: Array) -> Array:
        """Upright slices [slice, row, column] of voxels as on disk; rows from front (or top), columns rightwards."""
        return np.rot90(np.moveaxis(self.to_canonical(voxels), self.axis, 0), axes=(1, 2))

    def from_stack(self, stack: Array) -> Array:
        """The inverse of `to_stack`: voxels in the shape and order of the file."""
        canonical = np.moveaxis(np.rot90(stack, -1, axes=(1, 2)), 0, self.axis)
        back = _orientations().ornt_transform(CANONICAL, self._orientation())
        return np.ascontiguousarray(_orientations().apply_orientation(canonical, back)).reshape(self.shape)

    def slice_on_disk(self, index: int) -> int:
        """Index along the file's own slicing axis of slice ``index`` of the stack."""
        orientation = self._orientation()
        axis = int(np.flatnonzero(orientation[:, 0] == self.axis)[0])
        length = self._three_lengths[axis]
        return index if orientation[axis, 1] > 0 else length - 1 - index

    def to_mm(self, voxel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Coordinates [3] in mm of a (fractional) voxel index on disk [3]."""
        return self.affine[:3, :3] @ voxel + self.affine[:3, 3]

    @property
    def _three_lengths(self) -> tuple[int, ...]:
        return (*self.shape, 1, 1)[:3]

    def _orientation(self) -> Array:
        """Canonical axis and direction (1 or -1) of each axis on disk [3, 2]."""
        orientation: Array = _orientations().io_orientation(self.affine)
        return orientation


def same_grid(first: VolumeGeometry, second: VolumeGeometry) -> bool:
    """Whether the voxels of two volumes lie at the same places; they may be stored in another order."""
    if first.stack_shape != second.stack_shape:
        return False
    return bool(np.allclose(first.canonical_affine, second.canonical_affine, atol=SAME_GRID_MM))


def require_affine(affine: npt.NDArray[np.float64], name: object) -> None:
    """Raise InputError unless an affine is finite, invertible and has positive voxel sizes."""
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9 or not _has_axes(affine):
        raise InputError(f"{name} has an affine that cannot be inverted: where its voxels lie is not known.")


def _has_axes(affine: npt.NDArray[np.float64]) -> bool:
    """Whether each axis on disk has a length and a canonical axis of its own."""
    with np.errstate(all="ignore"):
        sizes = _voxel_sizes(affine)
        return bool(sizes.min() > 0 and np.isfinite(_orientations().io_orientation(affine)).all())


def _voxel_sizes(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    sizes: npt.NDArray[np.float64] = np.linalg.norm(affine[:3, :3], axis=0)
    return sizes


def _orientations() -> Any:
    from nibabel import orientations  # half a second that the workflow need not pay

    return orientations
