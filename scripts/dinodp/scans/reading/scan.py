"""One scan: a stack of upright slices, what is body and what is background, and where it lies."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dinodp.datasets.geometry import VolumeGeometry
from dinodp.datasets.volumes import require_foreground

Kind = Literal["volume", "image"]
Background = float | Literal["auto", "none"]
Values = npt.NDArray[np.float32]
Foreground = npt.NDArray[np.bool_]
N_CORNERS_ALIKE = 5  # of 8: then their value is the background, exactly


@dataclass(frozen=True)
class Scan:
    """``values`` float32 [slice, row, column], or [1, row, column, 3] of a colour image; ``foreground`` [slice, row,
    column]. ``geometry`` is None and ``depth`` 8 or 16 bits for an image; a volume has ``depth`` 0."""

    name: str
    path: Path
    values: Values
    foreground: Foreground
    geometry: VolumeGeometry | None
    depth: int = 0

    @property
    def kind(self) -> Kind:
        return "image" if self.geometry is None else "volume"

    @property
    def digest(self) -> str:
        """SHA-256 of all its values, in the order in which they are sliced."""
        return hashlib.sha256(np.ascontiguousarray(self.values).tobytes()).hexdigest()

    @property
    def channels(self) -> int:
        return 3 if self.values.ndim == 4 else 1

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Between slices, rows and columns in mm; None for an image."""
        return None if self.geometry is None else self.geometry.spacing


def find_foreground(values: Values, background: Background, kind: Kind, name: object) -> Foreground:
    """Which pixels [slice, row, column] show the body: another value than the background's, holes filled.

    ``auto`` takes the value of the corners of a volume as background if most of them are alike, else everything below
    Otsu's threshold; an image's ``auto`` has no background. Raises InputError when there is no foreground.
    """
    shape = values.shape[:3]
    if background == "none" or (background == "auto" and kind == "image"):
        return np.ones(shape, dtype=bool)
    level = _corner_value(values) if background == "auto" else background
    found = _above_otsu(values) if level is None else values != level
    if values.ndim == 4:
        found = found.any(axis=3)
    require_foreground(found, name)
    if shape[0] == 1:  # as a stack, every hole of it would be open to the sides
        return np.asarray(ndimage.binary_fill_holes(found[0]))[None]
    filled: Foreground = ndimage.binary_fill_holes(found)
    return filled


def _corner_value(values: Values) -> float | None:
    corners = values[np.ix_(*[[0, -1]] * 3)].ravel()
    distinct, counts = np.unique(corners, return_counts=True)
    return float(distinct[counts.argmax()]) if counts.max() >= N_CORNERS_ALIKE else None


def _above_otsu(values: Values) -> Foreground:
    """The largest connected part above Otsu's threshold (1979), the split of greatest variance between classes."""
    counts, edges = np.histogram(values, bins=256, range=(float(values.min()), float(np.quantile(values, 0.999))))
    if not counts[1:].any():
        return np.zeros(values.shape, dtype=bool)
    centres, below = (edges[1:] + edges[:-1]) / 2, np.cumsum(counts)
    above, moment = below[-1] - below, np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (moment / below - (moment[-1] - moment) / above) ** 2
    parts, n_parts = ndimage.label(values > centres[np.nanargmax(between)])
    if n_parts == 0:
        return np.zeros(values.shape, dtype=bool)
    largest: Foreground = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    return largest
