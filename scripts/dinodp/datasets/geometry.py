"""From the axes of a file to a stack of upright slices, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dinodp.errors import InputError

Array = npt.NDArray[Any]
Affine = npt.NDArray[np.float64]
SAME_GRID = 0.25  # of the shortest side of a voxel: how far two places of a voxel may lie apart
LARGEST_MM = 3000.0  # of a volume along an axis, longer than any person
CLEAR_TILT = 35.0  # degrees by which the axes of a volume may be turned before a frame is sought for its set
LARGEST_TILT = 40.0  # beyond it, at 45 degrees, slices are cut along one axis as well as along another
MOST_CANDIDATES = 50  # frames that are tried
CANONICAL = np.array([[0, 1], [1, 1], [2, 1]])  # axes run to the right, front and top


@dataclass(frozen=True)
class VolumeGeometry:
    """Where the voxels of a volume lie.

    ``shape`` is that of one volume on disk (two or three dimensions), ``affine`` [4, 4] takes its voxel indices to mm
    (right, front, top positive), ``axis`` is the canonical axis along which it is sliced: 0 sagittal, 1 coronal, 2
    axial. ``header`` is that of the NIfTI file, if there was one. ``frame`` [3, 3] has in its columns what counts as
    right, front and top for a set of oblique volumes (`common_frame`); None: the axes of the body.
    """

    shape: tuple[int, ...]
    affine: Affine
    axis: int
    header: Any = None
    frame: Affine | None = None

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
    def canonical_affine(self) -> Affine:
        """Affine [4, 4] of the voxels once their axes run to the right, front and top."""
        turn = _orientations().inv_ornt_aff(self._orientation(), self._three_lengths)
        found: Affine = self.affine @ turn
        return found

    @property
    def tilt(self) -> float:
        """Degrees by which the axes of the volume are turned against those of its frame, at most."""
        return _tilt(self.affine, np.eye(3) if self.frame is None else self.frame)

    @property
    def letters(self) -> tuple[str, str, str, str]:
        """Where the left, right, upper and lower side of an upright slice lie: R, L, A, P, S or I."""
        columns, rows = (self.canonical_affine[:3, axis] for axis in range(3) if axis != self.axis)
        return _letter(-columns), _letter(columns), _letter(rows), _letter(-rows)

    def place_of_slice(self, index: int) -> float:
        """Where the middle of slice ``index`` of the stack lies along the axis that it is nearest to, mm."""
        _, rows, columns = self.stack_shape
        middle = [(columns - 1) / 2, (rows - 1) / 2]
        middle.insert(self.axis, index)
        return float((self.canonical_affine @ [*middle, 1.0])[self.axis])

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
        return _orientation_in(self.affine, self.frame)


def same_grid(first: VolumeGeometry, second: VolumeGeometry) -> bool:
    """Whether the voxels of two volumes lie at the same places; they may be stored in another order."""
    if first.stack_shape != second.stack_shape:
        return False
    corners = np.stack([*np.ndindex(2, 2, 2)]) * (np.array(_canonical_shape(first)) - 1)
    moved = corners @ (first.canonical_affine - second.canonical_affine)[:3, :3].T
    apart = moved + (first.canonical_affine - second.canonical_affine)[:3, 3]
    return bool(np.linalg.norm(apart, axis=1).max() <= SAME_GRID * _voxel_sizes(first.affine).min())


def _canonical_shape(geometry: VolumeGeometry) -> tuple[int, ...]:
    slices, rows, columns = geometry.stack_shape
    lengths = [columns, rows]
    lengths.insert(geometry.axis, slices)
    return tuple(lengths)


def common_frame(affines: Sequence[Affine]) -> Affine | None:
    """Along which axes [3, 3] a whole set of volumes is sliced: None where those of the body are clear for most.

    Near 45 degrees the axis of a volume that is nearest to one of the body jumps between volumes that hardly differ;
    then the axes are those of the volume to which the others come nearest.
    """
    if not affines or max(_tilt(affine, np.eye(3)) for affine in affines) <= CLEAR_TILT:
        return None
    every = max(1, len(affines) // MOST_CANDIDATES)
    candidates = [np.eye(3), *(_axes(affine) for affine in affines[::every])]
    costs = []
    for number, frame in enumerate(candidates):
        tilts = np.array([_tilt(affine, frame) for affine in affines])
        costs.append((int((tilts > CLEAR_TILT).sum()), number > 0, float(tilts.sum()), number))
    chosen = min(costs)[-1]
    return None if chosen == 0 else candidates[chosen]


def direction_in_words(frame: Affine, axis: str) -> str:
    """How a set of oblique volumes is sliced, for a sentence."""
    direction = frame[:, ("sagittal", "coronal", "axial").index(axis)]
    shown = ", ".join(f"{value:.2f}" for value in direction)
    return f"and all are sliced along the direction ({shown}) to the right, front and top, nearest to {axis}"


def _orientation_in(affine: Affine, frame: Affine | None) -> Array:
    seen = affine if frame is None else _as_affine(frame.T @ affine[:3, :3])
    orientation: Array = _orientations().io_orientation(seen)
    return orientation


def _as_affine(matrix: Affine) -> Affine:
    affine = np.eye(4)
    affine[:3, :3] = matrix
    return affine


def _directions(affine: Affine, frame: Affine) -> Affine:
    """Unit vectors [3, 3] along the axes of a volume, in its columns, in the order and sense of those of a frame."""
    turn = _orientations().inv_ornt_aff(_orientation_in(affine, frame), (1, 1, 1))
    matrix = affine[:3, :3] @ turn[:3, :3]
    found: Affine = matrix / np.linalg.norm(matrix, axis=0)
    return found


def _axes(affine: Affine) -> Affine:
    """The orthogonal axes [3, 3] nearest to those of a volume."""
    left, _, right = np.linalg.svd(_directions(affine, np.eye(3)))
    found: Affine = left @ right
    return found


def _tilt(affine: Affine, frame: Affine) -> float:
    cosines = (_directions(affine, frame) * frame).sum(axis=0)
    return float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).max())


def _letter(direction: Affine) -> str:
    axis = int(np.abs(direction).argmax())
    return ("LR", "PA", "IS")[axis][int(direction[axis] > 0)]


def require_size(affine: Affine, shape: Sequence[int], name: object) -> None:
    """Raise InputError for a volume that is larger than any person: its voxel sizes or units are wrong."""
    sizes = _voxel_sizes(affine)[: len(shape)]
    lengths = sizes * shape[:3]
    if lengths.max() > LARGEST_MM:
        raise InputError(
            f"{name} measures {_in_mm(lengths)} by its header (voxels of {_in_mm(sizes)}): nobody is that large; "
            "correct its voxel sizes or their unit."
        )


def _in_mm(lengths: npt.NDArray[np.float64]) -> str:
    return " x ".join(f"{length:.4g}" for length in lengths) + " mm"


def require_affine(affine: Affine, name: object) -> None:
    """Raise InputError unless an affine is finite, invertible and has positive voxel sizes."""
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9 or not _has_axes(affine):
        raise InputError(f"{name} has an affine that cannot be inverted: where its voxels lie is not known.")


def _has_axes(affine: Affine) -> bool:
    """Whether each axis on disk has a length and a canonical axis of its own."""
    with np.errstate(all="ignore"):
        sizes = _voxel_sizes(affine)
        return bool(sizes.min() > 0 and np.isfinite(_orientations().io_orientation(affine)).all())


def _voxel_sizes(affine: Affine) -> npt.NDArray[np.float64]:
    sizes: npt.NDArray[np.float64] = np.linalg.norm(affine[:3, :3], axis=0)
    return sizes


def _orientations() -> Any:
    from nibabel import orientations  # half a second that the workflow need not pay

    return orientations
