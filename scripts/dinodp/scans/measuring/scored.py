"""One scan's map as it is measured, whoever wrote it."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dinodp.datasets.geometry import VolumeGeometry

ALL, SCORED, FOREGROUND = "all", "scored", "foreground"  # which normal pixels count
Map = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ScoredScan:
    """``scores`` and what was ``scored`` [slice, H, W]; no ``geometry`` of an image or an array.

    ``score`` of the scan and ``slice_scores`` by slice are those that the tool recorded, where it did.
    """

    scores: Map
    scored: Flags
    geometry: VolumeGeometry | None
    score: float | None = None
    slice_scores: dict[int, float] = field(default_factory=dict)

    @property
    def is_volume(self) -> bool:
        """Whether it has slices."""
        return self.geometry is not None or len(self.scores) > 1


class MapSource(Protocol):
    """Maps of several scans."""

    @property
    def pixels(self) -> tuple[str, ...]:
        """Which pixels may be counted: all, or also those that were scored."""
        ...

    @property
    def thresholds(self) -> dict[str, float]:
        """By rate, where the tool has some."""
        ...

    @property
    def failed(self) -> tuple[str, ...]:
        """Scans that the tool could not score."""
        ...

    @property
    def model(self) -> str:
        """What made the maps, in words."""
        ...

    @property
    def names(self) -> list[str]:
        """The scans, by name."""
        ...

    def scan(self, name: str) -> ScoredScan:
        """One scan. Raises InputError when its map cannot be read."""
        ...
