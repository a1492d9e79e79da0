"""Coresets of embeddings: greedy k-center (as PatchCore, Roth et al., CVPR 2022), and what it will take.

Again and again a point is taken that is farthest from all taken so far. Rounds make that a matter of matrix products:
of a pool of far points the next ones are taken one by one, as long as none outside the pool can be farther (but for a
slack), and only then are the distances of all others brought up to date.
"""

import math
from collections.abc import Iterator
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch

from dinodp.errors import InputError
from dinodp.jobs.logs import progress
from dinodp.models.components import finite_matrix
from dinodp.models.memory_bank import search_on_cpu, unit_vectors

POOL = 4096  # far embeddings, among which the next ones of a round are taken
ROWS_PER_UPDATE = 65536  # embeddings whose distances are brought up to date at once
TRIAL_ROWS, TRIAL_CENTRES = 4096, 1024  # of the products by which the time is estimated
Indices = npt.NDArray[np.int64]


def coreset(x: torch.Tensor, n: int, generator: torch.Generator) -> Indices:
    """Indices [n] of a greedy k-center subset of embeddings [m, D] in cosine distance.

    The first is drawn at random; each next one is the farthest from all chosen. Time n m D, memory O(m D).
    Raises InputError when n is not between 1 and m.
    """
    require_count(n, len(x))
    unit = unit_vectors(finite_matrix(x))
    return farthest_first(unit, n, int(torch.randint(len(unit), (1,), generator=generator)))


def require_count(n: int, m: int) -> None:
    """Raise InputError unless n of m embeddings can be taken."""
    if not 1 <= n <= m:
        raise InputError(f"A coreset of {n} embeddings was asked for; it must be between 1 and {m}.")


def farthest_first(unit: torch.Tensor, n: int, first: int, slack: float = 0.0) -> Indices:
    """Indices [n] of unit vectors [m, d], float32 or float16: ``first``, then always one far from all taken.

    Its distance (of the chord) is at least 1 - ``slack`` times that of the farthest; so the covering radius is at most
    2 / (1 - slack) times the smallest that n vectors can have (Gonzalez, 1985, without slack).
    """
    taken = progress(_taken(unit, n, first, slack), "coreset", total=n, unit="embedding")
    return np.fromiter(taken, dtype=np.int64, count=n)


def _taken(unit: torch.Tensor, n: int, first: int, slack: float) -> Iterator[int]:
    similarity = torch.full((len(unit),), -torch.inf)  # to the nearest of those taken; inf: is one of them
    new = [first]
    while n:
        yield from new
        n -= len(new)
        if n:
            _bring_up_to_date(similarity, unit, new)
            new = _round(similarity, unit, n, slack)


def _bring_up_to_date(similarity: torch.Tensor, unit: torch.Tensor, new: list[int]) -> None:
    """Raise ``similarity`` [m] to that of the ``new`` vectors, which are not to be taken again."""
    centres = unit[new].float()
    for start in range(0, len(unit), ROWS_PER_UPDATE):
        rows = slice(start, start + ROWS_PER_UPDATE)
        part = unit[rows].float()
        search_on_cpu(part, centres, 0, similarity[rows], torch.empty(len(part), dtype=torch.int64))
    similarity[new] = torch.inf


def _round(similarity: torch.Tensor, unit: torch.Tensor, most: int, slack: float) -> list[int]:
    """The next ones, at most ``most``, of the pool: until one outside of it may be farther by more than the slack."""
    places, limit = _spread_pool(similarity, slack) if slack else _farthest_pool(similarity)
    near, pool = similarity[places], unit[places].float()
    found: list[int] = []
    while len(found) < most:
        index = int(near.argmin())
        if found and float(near[index]) > limit:
            break
        found.append(index)
        near = torch.maximum(near, pool @ pool[index])
        near[index] = torch.inf
    return [int(place) for place in places[found]]


def _farthest_pool(similarity: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The farthest, and the similarity that none outside of them is below."""
    values, places = similarity.topk(min(POOL + 1, len(similarity)), largest=False)
    return places[:POOL], float(values[-1]) if len(values) > POOL else math.inf


def _spread_pool(similarity: torch.Tensor, slack: float) -> tuple[torch.Tensor, float]:
    """Some, evenly spread, of all that are nearly the farthest, and the similarity up to which they are."""
    limit = 1 - (1 - slack) ** 2 * (1 - float(similarity.min()))  # 1 - similarity is half of the squared chord
    places = (similarity <= limit).nonzero().flatten()
    return places[:: -(-len(places) // POOL)], limit


def estimated_seconds(m: int, n: int, dims: int) -> float:
    """Seconds that taking n of m vectors of ``dims`` numbers will last here, from a trial of its matrix products."""
    rows, centres = torch.ones(TRIAL_ROWS, dims), torch.ones(TRIAL_CENTRES, dims)
    best, index = torch.zeros(TRIAL_ROWS), torch.empty(TRIAL_ROWS, dtype=torch.int64)
    search_on_cpu(rows, centres, 0, best, index)  # the first is slower
    start = perf_counter()
    search_on_cpu(rows, centres, 0, best, index)
    return (perf_counter() - start) * (m / TRIAL_ROWS) * (n / TRIAL_CENTRES)
