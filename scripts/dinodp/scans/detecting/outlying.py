"""Healthy scans that look like none of the others: each is compared with all but itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from dinodp.images import image_score
from dinodp.jobs.logs import progress
from dinodp.scans.detecting.token_file import TokenFile

LEAST_SUBJECTS = 4  # among fewer, none is the odd one out
MOST_COMPARED = 20_000  # embeddings of the other scans, equally many of each
MOST_OF_A_SCAN = 2_000  # embeddings that are compared with them
FAR = 6.0  # robust standard deviations above the median
LEAST_SPREAD = 0.05  # of the median: scans that are nearly alike are no yardstick
SPREAD_OF_MEDIAN = 1.4826  # standard deviations in the median deviation of a normal distribution


@dataclass(frozen=True)
class Outlying:
    """A healthy scan, its distance from the others when it is left out, and the median of such distances."""

    name: str
    distance: float
    median: float


def outlying(names: Sequence[str], subjects: Sequence[str], embeddings: Sequence[torch.Tensor]) -> list[Outlying]:
    """The scans far above the others, highest first; ``embeddings`` [n, D] of the foreground of each scan.

    The distance of a scan is the mean of the highest 1 % of the cosine distances of its embeddings to the nearest one
    of the scans of other subjects.
    """
    if len(set(subjects)) < LEAST_SUBJECTS:
        return []
    unit = [functional.normalize(item, dim=-1) for item in embeddings]
    numbers = progress(range(len(unit)), "compare", unit="scan")
    distances = np.array([_left_out(number, subjects, unit) for number in numbers])
    median = float(np.median(distances))
    spread = max(SPREAD_OF_MEDIAN * float(np.median(np.abs(distances - median))), LEAST_SPREAD * median)
    far = [index for index in np.argsort(-distances).tolist() if distances[index] > median + FAR * spread]
    return [Outlying(names[index], float(distances[index]), median) for index in far]


def _left_out(number: int, subjects: Sequence[str], unit: Sequence[torch.Tensor]) -> float:
    others = [item for item, subject in zip(unit, subjects, strict=True) if subject != subjects[number]]
    share = max(1, MOST_COMPARED // len(others))
    bank = torch.cat([_evenly(item, share) for item in others])
    nearest = (_evenly(unit[number], MOST_OF_A_SCAN) @ bank.T).max(dim=1).values
    scores: npt.NDArray[np.float32] = (1 - nearest).numpy()
    return float(image_score(scores.reshape(1, 1, -1))[0])


def _evenly(tokens: torch.Tensor, count: int) -> torch.Tensor:
    """At most ``count`` of the embeddings [n, D], evenly spaced."""
    n = len(tokens)
    return tokens if n <= count else tokens[(torch.arange(count) * n) // count]


def foreground_of(file: TokenFile, n_scans: int) -> list[torch.Tensor]:
    """A sample [n, D] of the embeddings of the foreground of each scan in ``file``, of ``n_scans`` in all."""
    most = max(MOST_OF_A_SCAN, MOST_COMPARED // n_scans)
    found, first = [], 0
    for count in file.counts:
        pictures = range(first, first + count)
        inside = file.foreground(pictures)
        tokens = file.read(pictures)[inside] if bool(inside.any()) else file.read(pictures).flatten(0, 2)
        found.append(_evenly(tokens, most))
        first += count
    return found
