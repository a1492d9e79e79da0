"""What of a volume tells how it was prepared: its size, its field of view, and dark layers such as a skull."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from scipy import ndimage

from dinodp.errors import InputError, require_finite
from dinodp.scans.reading.scan import Scan

GRID = 3.0  # mm between the voxels that are looked at
SHELL = (4.0, 15.0)  # mm below the surface: there a head has its skull, a brain its cortex
DARK = 0.25  # of the median of the foreground
VOLUME_FACTOR = 1.5  # brains differ by a third, a head is 2.5 brains
HEIGHT_FACTOR = 1.25
SPACING_FACTOR = 1.3  # beyond it resolution differs; far beyond it a scan is refused
RING_MARGIN = 0.06  # of the shell: brains of one study differ by 0.04, a head has 0.1 more
LEAST_OTHERS = 4  # scans that make a range


@dataclass(frozen=True)
class Look:
    """``ml`` of the foreground, its ``height`` in mm across the slices, the dark share (``ring``) of what lies 4 to
    15 mm below its surface, and mm between ``slices``, ``rows`` and ``columns``."""

    ml: float
    height: float
    ring: float
    slices: float
    rows: float
    columns: float

    @classmethod
    def of(cls, scan: Scan, window: tuple[float, float]) -> "Look | None":
        """Of a volume with grey values ``window``; None of an image."""
        if scan.geometry is None:
            return None
        spacing = scan.geometry.spacing
        inside = np.flatnonzero(scan.foreground.any(axis=(1, 2)))
        height = float(inside[-1] + 1 - inside[0]) * spacing[0]
        ml = float(scan.foreground.sum() * scan.geometry.voxel_ml)
        return cls(ml, height, _ring(scan, spacing, window), *spacing)


def _ring(scan: Scan, spacing: tuple[float, float, float], window: tuple[float, float]) -> float:
    steps = [max(1, round(GRID / size)) for size in spacing]
    places = tuple(slice(None, None, step) for step in steps)
    foreground, values = scan.foreground[places], scan.values[places]
    if not foreground.any():
        return 0.0
    sampling = [size * step for size, step in zip(spacing, steps, strict=True)]
    depth = ndimage.distance_transform_edt(np.pad(foreground, 1), sampling=sampling)[1:-1, 1:-1, 1:-1]
    shell = (depth > SHELL[0]) & (depth <= SHELL[1])
    if not shell.any():
        return 0.0
    limit = window[0] + DARK * (float(np.median(values[foreground])) - window[0])
    return float((values[shell] < limit).mean())


@dataclass(frozen=True)
class Looks:
    """Smallest and largest of each over the healthy volumes. Raises InputError for what no scans give."""

    ml: tuple[float, float]
    height: tuple[float, float]
    ring: tuple[float, float]
    slices: tuple[float, float]
    rows: tuple[float, float]
    columns: tuple[float, float]

    def __post_init__(self) -> None:
        for name, (least, most) in asdict(self).items():
            require_finite(f"The healthy range's {name}", least, most)
            if not 0 <= least <= most:
                raise InputError(f"The healthy range's {name} runs from {least:g} to {most:g}.")

    @classmethod
    def over(cls, looks: Sequence[Look]) -> "Looks":
        """Of at least one."""
        values = {item.name: [getattr(look, item.name) for look in looks] for item in fields(cls)}
        return cls(**{name: (min(found), max(found)) for name, found in values.items()})

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Looks":
        """From a mapping of pairs."""
        return cls(**{item.name: tuple(content[item.name]) for item in fields(cls)})

    def unlike(self, look: Look) -> Iterator[str]:
        """A sentence, without its end, on each thing in which a scan differs."""
        if _beyond(look.ml, self.ml, VOLUME_FACTOR):
            yield (
                f"its foreground has {look.ml:.4g} ml, that of the healthy scans {_between(self.ml)} ml: stripped of "
                "the skull, or cut, otherwise?"
            )
        if _beyond(look.height, self.height, HEIGHT_FACTOR):
            yield (
                f"its foreground reaches over {look.height:.4g} mm across the slices, that of the healthy scans over "
                f"{_between(self.height)} mm: another field of view?"
            )
        if not self.ring[0] - RING_MARGIN <= look.ring <= self.ring[1] + RING_MARGIN:
            yield (
                f"{look.ring:.0%} of what lies {SHELL[0]:g} to {SHELL[1]:g} mm below its surface is dark, in the "
                f"healthy scans {self.ring[0]:.0%} to {self.ring[1]:.0%}: a skull here and not there, or the reverse?"
            )
        for name in ("slices", "rows", "columns"):
            if _beyond(getattr(look, name), getattr(self, name), SPACING_FACTOR):
                yield (
                    f"its {name} lie {getattr(look, name):.3g} mm apart, those of the healthy scans "
                    f"{_between(getattr(self, name))} mm: another resolution"
                )


def odd_looks(names: Sequence[str], looks: Sequence[Look]) -> Iterator[tuple[str, str]]:
    """Name and sentence of each healthy scan that is unlike all others."""
    if len(looks) <= LEAST_OTHERS:
        return
    for number, (name, look) in enumerate(zip(names, looks, strict=True)):
        for said in Looks.over([*looks[:number], *looks[number + 1 :]]).unlike(look):
            yield name, said


def _beyond(value: float, pair: tuple[float, float], factor: float) -> bool:
    return not pair[0] / factor <= value <= pair[1] * factor


def _between(pair: tuple[float, float]) -> str:
    least, most = (f"{value:.4g}" for value in pair)
    return least if least == most else f"{least} to {most}"
