"""Healthy scans that look like none of the others: each is compared with all but itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from dinodp.images import image_score
from dinodp.jobs.logs import progress
from dinodp.scans.detecting.token_file import TokenFile

LEAST_SUBJECTS = 4  # among fewer, none is the odd one out
BANK = 10_000  # embeddings that each scan is compared with, equally many of each scan
MOST_OF_A_SCAN, LEAST_OF_A_SCAN, MOST_IN_ALL = 2_000, 100, 50_000  # embeddings that are compared with them
FAR = 6.0  # robust standard deviations above the median
LEAST_SPREAD = 0.05  # of the median: scans that are nearly alike are no yardstick
SPREAD_OF_MEDIAN = 1.4826  # standard deviations in the median deviation of a normal distribution
Sample = Callable[[int, int], torch.Tensor]


@dataclass(frozen=True)
class Outlying:
    """A healthy scan, its distance from the others when it is left out, and the median of such distances."""

    name: str
    distance: float
    median: float


def outlying(names: Sequence[str], subjects: Sequence[str], sample: Sample) -> list[Outlying]:
    """The scans far above the others, highest first; ``sample(number, count)``: at most so many embeddings [n, D] of
    the foreground of a scan.

    The distance of a scan is the mean of the highest 1 % of the cosine distances of its embeddings to the nearest one
    of the scans of other subjects.
    """
    if len(set(subjects)) < LEAST_SUBJECTS:
        return []
    share = [_unit(sample(number, max(1, BANK // len(names)))) for number in range(len(names))]
    bank, owners = torch.cat(share), np.repeat(np.asarray(subjects), [len(item) for item in share])
    count = min(MOST_OF_A_SCAN, max(LEAST_OF_A_SCAN, MOST_IN_ALL // len(names)))
    distances = np.array(
        [
            _distance(_unit(sample(number, count)), bank[torch.from_numpy(owners != subjects[number])])
            for number in progress(range(len(names)), "compare", unit="scan")
        ]
    )
    median = float(np.median(distances))
    spread = max(SPREAD_OF_MEDIAN * float(np.median(np.abs(distances - median))), LEAST_SPREAD * median)
    far = [index for index in np.argsort(-distances).tolist() if distances[index] > median + FAR * spread]
    return [Outlying(names[index], float(distances[index]), median) for index in far]


def _unit(tokens: torch.Tensor) -> torch.Tensor:
    return functional.normalize(tokens, dim=-1)


def _distance(tokens: torch.Tensor, bank: torch.Tensor) -> float:
    scores: npt.NDArray[np.float32] = (1 - (tokens @ bank.T).max(dim=1).values).numpy()
    return float(image_score(scores.reshape(1, 1, -1))[0])


def evenly(tokens: torch.Tensor, count: int) -> torch.Tensor:
    """At most ``count`` of the embeddings [n, D], evenly spaced."""
    n = len(tokens)
    return tokens if n <= count else tokens[(torch.arange(count) * n) // count]


def samples_of(files: Sequence[TokenFile]) -> Sample:
    """Of the foreground of the scans whose pictures are in the files, numbered through; all of a scan without any."""
    places = [
        (file, range(first, last))
        for file in files
        for first, last in pairwise(accumulate(file.counts, initial=0))
    ]

    def sample(number: int, count: int) -> torch.Tensor:
        file, pictures = places[number]
        inside, tokens = file.foreground(pictures), file.read(pictures)
        return evenly(tokens[inside] if bool(inside.any()) else tokens.flatten(0, 2), count)

    return sample
