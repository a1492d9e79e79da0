"""A folder of maps that any tool wrote, as what is measured."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from dinodp.datasets.map_files import find_maps, read_map_file
from dinodp.datasets.volumes import AXES
from dinodp.jobs.files import RECORD, UNFINISHED
from dinodp.scans.measuring.predictions import Predictions
from dinodp.scans.measuring.scored import ALL, MapSource, ScoredScan


@dataclass(frozen=True)
class MapFolder:
    """Maps by name; all of their pixels count. Volumes are sliced along ``axis``."""

    pixels: ClassVar[tuple[str, ...]] = (ALL,)

    folder: Path
    maps: dict[str, Path]
    axis: str = "axial"
    thresholds: dict[str, float] = field(default_factory=dict)
    failed: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def names(self) -> list[str]:
        """The maps, by name."""
        return sorted(self.maps)

    def scan(self, name: str) -> ScoredScan:
        """One map. Raises InputError when it cannot be read or holds values that are not finite."""
        values, volume = read_map_file(self.maps[name])
        geometry = None if volume is None else volume.geometry(AXES[self.axis])
        stack = values if geometry is None else geometry.to_stack(values)
        scores = np.ascontiguousarray(stack if stack.ndim == 3 else stack[None])
        return ScoredScan(scores, np.ones(scores.shape, dtype=bool), geometry)


def open_maps(folder: Path, axis: str = "axial") -> MapSource:
    """What `dinodp predict` wrote into a folder, or the maps of any other tool. Raises InputError for neither."""
    if (folder / RECORD).exists() or (folder / UNFINISHED).exists():
        return Predictions.read(folder)
    return MapFolder(folder, find_maps(folder), axis)
