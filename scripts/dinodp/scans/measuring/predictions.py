"""What `dinodp predict` wrote into a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dinodp.datasets.geometry import Affine, VolumeGeometry
from dinodp.datasets.volumes import AXES
from dinodp.errors import InputError, one_line
from dinodp.jobs.files import RECORD
from dinodp.jobs.foreign_json import parsed_json
from dinodp.scans.measuring.scored import ALL, SCORED, ScoredScan
from dinodp.scans.writing.maps import read_map
from dinodp.scans.writing.unfinished import require_finished


@dataclass(frozen=True)
class PredictedScan:
    """What the record says of one scan: its map, what that holds where nothing was scored, its score, those of its
    slices (index on disk, score), and its map of tail probabilities, if there is one."""

    map: Path
    outside: float
    score: float
    slices: Sequence[tuple[int, float]]
    tail: Path | None = None

    @classmethod
    def of(cls, folder: Path, row: Mapping[str, Any]) -> "PredictedScan":
        """From the record in ``folder``. Raises KeyError, TypeError or ValueError for another."""
        slices = [(int(item["slice"]), float(item["score"])) for item in row["slices"]]
        tail = folder / row["tail"] if "tail" in row else None
        return cls(folder / row["map"], float(row["outside"]), float(row["score"]), slices, tail)


@dataclass(frozen=True)
class Predictions:
    """What `dinodp predict` wrote into a folder; ``thresholds`` by rate. What was not scored does not count."""

    pixels: ClassVar[tuple[str, ...]] = (SCORED, ALL)

    folder: Path
    model: str
    axis: int
    frame: Affine | None
    map_range: tuple[float, float]
    thresholds: dict[str, float]
    failed: tuple[str, ...]
    scans: dict[str, PredictedScan]

    @classmethod
    def read(cls, folder: Path) -> "Predictions":
        """Raises InputError when the folder holds no predictions, or not all of them."""
        require_finished(folder)
        try:
            content = parsed_json((folder / RECORD).read_bytes(), folder / RECORD)
            low, high = content["map_range"]
            return cls(
                folder,
                f"{content['model']} ({content['backbone']['backbone']})",
                AXES[content["axis"]],
                None if content["frame"] is None else np.array(content["frame"], dtype=np.float64).reshape(3, 3),
                (float(low), float(high)),
                {name: float(value) for name, value in content["thresholds"].items()},
                tuple(sorted(content["failed"])),
                {item["name"]: PredictedScan.of(folder, item) for item in content["scans"]},
            )
        except OSError as error:
            raise InputError(f"{folder} holds no predictions of `dinodp predict` (no readable {RECORD}).") from error
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{folder / RECORD} is not what this version of `dinodp predict` writes ({type(error).__name__}: "
                f"{one_line(error)}): predict again."
            ) from error

    @property
    def names(self) -> list[str]:
        """The scans that were scored, by name."""
        return sorted(self.scans)

    def scan(self, name: str) -> ScoredScan:
        """Map and scores of one scan. Raises InputError when the map cannot be read."""
        scan = self.scans[name]
        scores, scored, affine = read_map(scan.map, self.map_range, scan.outside)
        if affine is None:
            return ScoredScan(scores[None], scored[None], None, scan.score)
        geometry = VolumeGeometry(scores.shape, affine, self.axis, frame=self.frame)
        slices = {geometry.slice_on_disk(index): score for index, score in scan.slices}
        return ScoredScan(geometry.to_stack(scores), geometry.to_stack(scored), geometry, scan.score, slices)
