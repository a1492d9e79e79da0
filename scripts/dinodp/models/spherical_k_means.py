"""Spherical k-means of embeddings that are streamed: k-means++ on a draw of them, then Lloyd's passes over all.

Sources: k-means++ (Arthur & Vassilvitskii, SODA 2007); spherical k-means (Dhillon & Modha, Machine Learning 2001).
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from dinodp.models.row_stream import RowStream


def spherical_k_means(
    rows: RowStream, n: int, k: int, *, start_rows: int, passes: int, generator: torch.Generator
) -> torch.Tensor:
    """Unit centres [K', D] of ``n`` rows; K' <= k is the number of different rows among those of the start.

    The start sees ``start_rows`` of the rows, drawn without replacement. Each pass reads all of them once.
    """
    drawn = torch.randperm(n, generator=generator)[:start_rows].sort().values
    centres = plus_plus(functional.normalize(rows.take(drawn), dim=1), k, generator)
    for _ in range(passes):
        centres = lloyd(rows, centres)
    return centres


def plus_plus(x: torch.Tensor, k: int, generator: torch.Generator) -> torch.Tensor:
    """At most ``k`` of the unit vectors [n, D], all different: each next one by its squared distance to the nearest.

    It ends early when every vector is a centre.
    """
    chosen = [int(torch.randint(len(x), (1,), generator=generator))]
    distance = _squared_distance(x, chosen[0])
    while len(chosen) < k and float(distance.sum()) > 0:
        chosen.append(_draw(distance, generator))
        distance = torch.minimum(distance, _squared_distance(x, chosen[-1]))
    return x[chosen]


def _draw(weights: torch.Tensor, generator: torch.Generator) -> int:
    """An index with probability proportional to ``weights`` [n]; `torch.multinomial` is limited to 2^24 of them."""
    cumulated = weights.double().cumsum(0)
    place = torch.rand(1, generator=generator, dtype=torch.float64).to(weights.device) * cumulated[-1]
    return int(torch.searchsorted(cumulated, place, right=True).clamp_max(len(weights) - 1))


def _squared_distance(x: torch.Tensor, row: int) -> torch.Tensor:
    """Squared distances [n] of unit vectors to one of them; of an equal vector exactly zero, whatever the rounding."""
    distance = 2 - 2 * (x @ x[row])
    return torch.where(distance > 8 * torch.finfo(x.dtype).eps, distance, 0.0)


def nearest(chunk: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest cosine similarity [n] of embeddings [n, D] to unit centres, and the centre's index [n]."""
    cosine, labels = (functional.normalize(chunk, dim=1) @ centres.T).max(1)
    return cosine, labels


def lloyd(rows: RowStream, centres: torch.Tensor) -> torch.Tensor:
    """Centres after one pass; an empty cluster moves to one of the vectors that are farthest from their centres."""
    sums = torch.zeros_like(centres, dtype=torch.float64)
    counts, far = torch.zeros(len(centres), device=centres.device), Farthest.none(centres)
    for chunk in rows:
        cosine, labels = nearest(chunk, centres)
        unit = functional.normalize(chunk, dim=1)
        sums.index_add_(0, labels, unit.double())
        counts += torch.bincount(labels, minlength=len(centres))
        far = far.joined(1 - cosine, unit, limit=len(centres))
    moved = functional.normalize(sums, dim=1).to(centres.dtype)
    empty = torch.nonzero(counts == 0).flatten()[: len(far.vectors)]
    moved[empty] = far.vectors[: len(empty)]
    return moved


@dataclass(frozen=True)
class Farthest:
    """The vectors [m, D] seen so far with the largest distances [m], the largest first."""

    distances: torch.Tensor
    vectors: torch.Tensor

    @classmethod
    def none(cls, like: torch.Tensor) -> "Farthest":
        """None yet, of vectors ``like`` these."""
        return cls(like.new_empty(0), like[:0])

    def joined(self, distances: torch.Tensor, vectors: torch.Tensor, limit: int) -> "Farthest":
        """With more vectors [n, D] at ``distances`` [n], at most ``limit`` of all."""
        distances, vectors = torch.cat([self.distances, distances]), torch.cat([self.vectors, vectors])
        best = distances.topk(min(limit, len(distances))).indices
        return Farthest(distances[best], vectors[best])
