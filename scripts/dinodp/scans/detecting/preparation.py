"""From a scan to what the backbone sees of it: which slices, where on the canvas, with which window."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dinodp.backbones import Backbone
from dinodp.datasets.volumes import to_grey
from dinodp.errors import InputError
from dinodp.scans.detecting.canvas import Picture, Placement, patches_with, pictures, slice_choice
from dinodp.scans.detecting.healthy import HealthyRange, Measures
from dinodp.scans.detecting.settings import Settings
from dinodp.scans.reading.folder import ReadingOptions
from dinodp.scans.reading.scan import Scan


@dataclass(frozen=True)
class PreparedScan:
    """A scan with the indices of its ``chosen`` slices, their place on the canvas, and the values that become black
    and white."""

    scan: Scan
    measures: Measures
    chosen: Sequence[int]
    placement: Placement
    window: tuple[float, float]

    def pictures(self) -> Iterator[Picture]:
        """What the backbone sees: one picture uint8 [H, W, 3] per chosen slice."""
        return pictures(self.scan, self.chosen, self.placement, self.window)

    @property
    def shown(self) -> npt.NDArray[np.bool_]:
        """Foreground [chosen slice, H, W] that lies on the canvas."""
        height, width = self.scan.foreground.shape[1:]
        shown: npt.NDArray[np.bool_] = self.scan.foreground[list(self.chosen)] & self.placement.shown((height, width))
        return shown

    def patch_foreground(self, backbone: Backbone, grid: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which patches [chosen slice, row, col] show foreground; all of a slice that shows none, as --force has it."""
        height, width = self.scan.foreground.shape[1:]
        positions = self.placement.positions((height, width), backbone)
        inside = patches_with(self.shown, positions, (int(grid[0]), int(grid[1])))
        inside[~inside.any(axis=(1, 2))] = True
        return inside


def require_contrast(scan: Scan, window: tuple[float, float]) -> None:
    """Raise InputError when all of the foreground would become black, or all of it white: its score would say nothing,
    and black may look healthier than any scan."""
    values = scan.values[scan.foreground]
    ends = np.array([values.min(), values.max()])
    if len(set(to_grey(ends, *window).tolist())) == 1:
        raise InputError(
            f"{scan.path}: its values run from {ends[0]:g} to {ends[1]:g}, but the window of the model from "
            f"{window[0]:g} to {window[1]:g}: nothing of it would be seen."
        )


@dataclass(frozen=True)
class Preparation:
    """How every scan is prepared: by the settings of the fit and by what the healthy scans were like."""

    settings: Settings
    healthy: HealthyRange

    def reading(self) -> ReadingOptions:
        """How new scans are read."""
        return replace(self.settings.reading(), frame=self.healthy.axes)

    def of(self, scan: Scan, every: int) -> PreparedScan:
        """Choose every ``every``-th slice with enough foreground, place and window it.

        Raises InputError for a scan without contrast, of its own or within the window.
        """
        prepared = self._prepared(scan, every)
        require_contrast(scan, prepared.window)
        return prepared

    def of_new(self, scan: Scan, every: int, *, force: bool = False) -> PreparedScan:
        """As `of`, but a scan unlike the healthy ones is refused; ``force`` allows other values, spacing and size."""
        prepared = self._prepared(scan, every)
        self.healthy.require_same_kind(scan, prepared.measures)
        self.healthy.require_possible(scan, prepared.measures)
        if not force:
            self.healthy.require_similar(scan, prepared.measures)
        require_contrast(scan, prepared.window)
        return prepared

    def _prepared(self, scan: Scan, every: int) -> PreparedScan:
        measures = Measures.of(scan)
        chosen, window = self._chosen(scan, every), self._window(measures)
        return PreparedScan(scan, measures, chosen, Placement.of(scan, self.healthy), window)

    def _chosen(self, scan: Scan, every: int) -> list[int]:
        if scan.spacing is None:
            return [0]
        canvas_area = self.healthy.side**2 / (scan.spacing[1] * scan.spacing[2])
        return slice_choice(scan.foreground, self.settings.min_foreground, every, canvas_area)

    def _window(self, measures: Measures) -> tuple[float, float]:
        """Chosen values; 0 to 255 of 8-bit images; the ends over all healthy 16-bit images; else the percentiles of the
        volume itself."""
        if self.settings.window is not None:
            return self.settings.window
        if measures.kind == "volume":
            return measures.low, measures.high
        return (0.0, 255.0) if measures.depth == 8 else (self.healthy.low[0], self.healthy.high[1])

    def to_json(self) -> dict[str, Any]:
        """As a mapping of plain values."""
        return {"settings": self.settings.to_json(), "healthy": self.healthy.to_json()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Preparation":
        """From a mapping that holds what `to_json` gave."""
        return cls(Settings.from_json(content["settings"]), HealthyRange.from_json(content["healthy"]))
