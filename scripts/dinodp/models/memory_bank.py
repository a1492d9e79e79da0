"""Memory bank of patch embeddings with exact nearest-neighbour search; few-shot subsets and greedy coresets.

Sources: AnomalyDINO (Damm et al., WACV 2025); the greedy coreset is PatchCore's (Roth et al., CVPR 2022).
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional

from dinodp.errors import InputError
from dinodp.logs import progress
from dinodp.models.dirichlet_process import finite_matrix

QUERIES_PER_CHUNK = 1024
BANK_PER_CHUNK = 32768  # a block of similarities is [1024, 32768] float32: 128 MiB


class MemoryBank:
    """Remember embeddings [m, D]; the distance of a query is 1 - its largest cosine similarity to any of them."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)

    def fit(self, x: torch.Tensor | Iterable[torch.Tensor]) -> "MemoryBank":
        """Remember embeddings [m, D], or chunks of them.

        Raises InputError for none, for values that are not finite, and for embeddings of length zero.
        """
        chunks = [x] if isinstance(x, torch.Tensor) else x
        kept = [_unit(finite_matrix(chunk)).to(self.device) for chunk in chunks]
        if not kept:
            raise InputError("A memory bank needs at least one embedding; none was given.")
        self.embeddings_ = torch.cat(kept)
        return self

    def distances(self, x: torch.Tensor) -> torch.Tensor:
        """Distance [n], float32, of embeddings [n, D] to the nearest remembered one."""
        return self.nearest(x)[0]

    def nearest(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Distance [n] to the nearest remembered embedding and its index [n]; memory is bounded by the chunks."""
        if not hasattr(self, "embeddings_"):
            raise InputError("The memory bank is empty: call fit first.")
        queries = _unit(finite_matrix(x, self.embeddings_.shape[1])).to(self.device)
        parts = [self._nearest_of_chunk(chunk) for chunk in queries.split(QUERIES_PER_CHUNK)]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def _nearest_of_chunk(self, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        best = queries.new_full((len(queries),), -torch.inf)
        index = torch.zeros(len(queries), dtype=torch.int64, device=self.device)
        for first in range(0, len(self.embeddings_), BANK_PER_CHUNK):
            similarity, position = (queries @ self.embeddings_[first : first + BANK_PER_CHUNK].T).max(dim=1)
            better = similarity > best
            best = torch.where(better, similarity, best)
            index = torch.where(better, position + first, index)
        return 1 - best, index


def _unit(x: torch.Tensor) -> torch.Tensor:
    x = x.float()
    if bool((x.norm(dim=1) == 0).any()):
        raise InputError("An embedding has length zero: its cosine similarity is not defined.")
    return functional.normalize(x, dim=1)


def few_shot(n_images: int, shots: int, generator: torch.Generator) -> npt.NDArray[np.int64]:
    """Indices [shots] of training images drawn without replacement. Raises InputError if there are too few."""
    if shots > n_images:
        raise InputError(f"{shots} shots were asked for, but there are only {n_images} normal training images.")
    return np.asarray(torch.randperm(n_images, generator=generator)[:shots].numpy())


def coreset(x: torch.Tensor, n: int, generator: torch.Generator) -> npt.NDArray[np.int64]:
    """Indices [n] of a greedy k-center subset of embeddings [m, D] in cosine distance.

    The first is drawn at random; each next one is the farthest from all chosen. Time n m D, memory O(m D).
    Raises InputError when n is not between 1 and m.
    """
    if not 1 <= n <= len(x):
        raise InputError(f"A coreset of {n} embeddings was asked for; it must be between 1 and {len(x)}.")
    unit = _unit(finite_matrix(x))
    chosen = [int(torch.randint(len(unit), (1,), generator=generator))]
    similarity = unit @ unit[chosen[0]]
    for _ in progress(range(n - 1), "coreset", unit="embedding"):
        chosen.append(int(similarity.argmin()))
        similarity = torch.maximum(similarity, unit @ unit[chosen[-1]])
    return np.asarray(chosen, dtype=np.int64)
