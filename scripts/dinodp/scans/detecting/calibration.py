"""Thresholds from healthy scans that the model has not been fitted on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dinodp.errors import InputError, require_finite, require_known
from dinodp.metrics.thresholds import calibrated_thresholds
from dinodp.options.protocol import FALSE_POSITIVE_RATES
from dinodp.scans.detecting.tail import Tail

VOXELS_PER_SCAN = 200_000  # each held-out scan counts alike, at most this many of its voxels evenly spaced
MAP_HEADROOM = 3.0  # 16-bit maps reach this many healthy ranges above the highest healthy score
Map = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """``thresholds`` on voxels by name (fpr10, fpr05, fpr01), strictly above is anomalous; ``scan_rates`` the share of
    voxels above each, of every held-out scan by itself; ``scan_scores`` of the held-out scans; ``map_range`` are the
    scores that 0 and 65535 stand for in a 16-bit map; ``tail`` says how rare a score is among all those voxels."""

    thresholds: Mapping[str, float]
    scan_rates: Mapping[str, Sequence[float]]
    scan_scores: Sequence[float]
    map_range: tuple[float, float]
    tail: Tail

    def __post_init__(self) -> None:
        """Raises InputError for what no calibration gives: the numbers may come from a file."""
        if not list(self.thresholds) == list(self.scan_rates) == list(FALSE_POSITIVE_RATES):
            raise InputError(f"The calibration must have the thresholds {', '.join(FALSE_POSITIVE_RATES)}.")
        limits = list(self.thresholds.values())
        require_finite("A number of the calibration", *limits, *self.scan_scores, *self.map_range)
        if limits != sorted(limits):
            raise InputError(f"The thresholds {limits} of the calibration do not rise.")
        if not self.map_range[0] < self.map_range[1]:
            raise InputError(f"The range of maps {self.map_range} of the calibration does not rise.")
        for rates in self.scan_rates.values():
            if not 0 < len(rates) == len(self.scan_scores) or not all(0 <= rate <= 1 for rate in rates):
                raise InputError("The calibration must have a rate from 0 to 1 for each of its scan scores.")
        if not self.tail.scores[0] <= limits[0] <= limits[-1] <= self.tail.scores[-1]:
            raise InputError(f"The thresholds {limits} of the calibration lie beyond the scores of its tail.")

    @classmethod
    def of(cls, voxel_scores: Sequence[Map], scan_scores: Sequence[float]) -> "Calibration":
        """From scores of foreground voxels [n] and the scan score of each held-out healthy scan.

        Raises InputError when a score is not finite.
        """
        count = min(VOXELS_PER_SCAN, max(map(len, voxel_scores)))
        sampled = [evenly(scores, count) for scores in voxel_scores]
        pooled = np.concatenate(sampled)
        found = calibrated_thresholds(pooled)
        thresholds = {name: found[f"threshold_{name}"] for name in FALSE_POSITIVE_RATES}
        rates = {name: [float((scores > limit).mean()) for scores in sampled] for name, limit in thresholds.items()}
        return cls(thresholds, rates, [float(score) for score in scan_scores], _map_range(pooled), Tail.of(pooled))

    def threshold(self, name: str) -> float:
        """The threshold called ``name``. Raises InputError when there is none."""
        require_known("threshold", name, self.thresholds)
        return self.thresholds[name]

    def scan_threshold(self, false_positive_rate: float) -> float:
        """Scan score that at most this share of healthy scans exceeds, by rank among the held-out scans.

        With n of them no rate below 1 / (n + 1) can be held: then it is their largest score.
        """
        ordered = np.sort(self.scan_scores)
        rank = int(np.ceil((1 - false_positive_rate) * (len(ordered) + 1)))
        return float(ordered[min(rank, len(ordered)) - 1])

    def to_json(self) -> dict[str, Any]:
        """As a mapping of plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Calibration":
        """From what `to_json` gave."""
        low, high = content["map_range"]
        limits, rates = (
            {name: content[key][name] for name in FALSE_POSITIVE_RATES} for key in ("thresholds", "scan_rates")
        )
        return cls(limits, rates, content["scan_scores"], (low, high), Tail.from_json(content["tail"]))


def evenly(values: Map, count: int) -> Map:
    """``count`` of the values [n], evenly spaced; where there are fewer, some of them twice or more, as evenly."""
    return values[(np.arange(count) * len(values)) // count]


def _map_range(scores: Map) -> tuple[float, float]:
    low, high = float(scores.min()), float(scores.max())
    spread = (high - low) or 1.0
    bottom = low - spread if low < 0 else 0.0
    return bottom, high + MAP_HEADROOM * spread
