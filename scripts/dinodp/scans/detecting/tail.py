"""How rare a score is among the voxels of held-out healthy scans: a number from 0 to 1 that models have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dinodp.errors import InputError, require_finite

STEP = 1.01  # between the counts that are kept: a tail probability is exact, or higher by at most 1 %
MOST = 4096  # scores that are kept; of 10^12 voxels 2,800 are
Map = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tail:
    """``count`` healthy voxels; of their ``scores``, rising, some are kept, each with how many voxels lie ``above``."""

    count: int
    scores: Sequence[float]
    above: Sequence[int]

    def __post_init__(self) -> None:
        """Raises InputError for what no held-out voxels give: the numbers may come from a file."""
        if not 0 < len(self.scores) == len(self.above) <= MOST:
            raise InputError(f"The tail must have from 1 to {MOST} scores, and a count for each of them.")
        require_finite("A score of the tail", *self.scores)
        if not all(isinstance(number, int) for number in (self.count, *self.above)):
            raise InputError("The counts of the tail must be integers.")
        falls = [self.count, *self.above]
        if (np.diff(self.scores) <= 0).any() or (np.diff(falls) >= 0).any() or self.above[-1] != 0:
            raise InputError("The scores of the tail must rise, and its counts fall to 0.")

    @classmethod
    def of(cls, voxels: npt.NDArray[np.floating]) -> "Tail":
        """Of the scores [n] of healthy voxels that were not fitted."""
        distinct, counts = np.unique(np.asarray(voxels, dtype=np.float32), return_counts=True)
        above = len(voxels) - np.cumsum(counts)
        kept = np.unique(np.searchsorted(-above, -_levels(len(voxels))))
        return cls(len(voxels), distinct[kept].tolist(), above[kept].tolist())

    @property
    def smallest(self) -> float:
        """The smallest probability that it can give."""
        return 1 / (self.count + 1)

    def probability(self, scores: Map) -> Map:
        """Share (1 + number of healthy voxels that score at least as high) / (1 + count), float32 in the same shape.

        Voxels with the same score count as at least as high. Between the scores that are kept it is rounded up.
        """
        places = np.searchsorted(np.asarray(self.scores, dtype=np.float32), scores, side="left")
        at_least = np.array([self.count, *self.above], dtype=np.float64)[places]
        found: Map = ((1 + at_least) / (1 + self.count)).astype(np.float32)
        return found

    def to_json(self) -> dict[str, Any]:
        """As a mapping of plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Tail":
        """From what `to_json` gave."""
        return cls(content["count"], content["scores"], content["above"])


def _levels(n: int) -> npt.NDArray[np.float64]:
    """Counts from n down to 0, each at most `STEP` times the next, but for those of single voxels."""
    steps = int(np.ceil(np.log(n) / np.log(STEP))) + 1
    return np.append(np.floor(n / STEP ** np.arange(steps)), 0)
