"""Memory bank of patch embeddings with exact nearest-neighbour search (AnomalyDINO, Damm et al., WACV 2025)."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional
from threadpoolctl import ThreadpoolController

from dinodp.errors import InputError
from dinodp.jobs.prefetch import prefetched
from dinodp.models.components import finite_matrix

BANK_PER_CHUNK = 32768  # remembered embeddings that a device looks at at once, and that are read at once from a file
ROWS_PER_BLOCK = 1024  # of queries
BANK_PER_BLOCK = 4096  # on the CPU: of the shapes tried the fastest matrix product


class MemoryBank:
    """Remember embeddings [m, D]; the distance of a query is 1 - its largest cosine similarity to any of them.

    ``fit`` holds them in memory, ``fit_streamed`` reads them anew for every search: the same numbers, and the same
    bytes on the CPU, from memory that does not grow with m.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)

    def fit(self, x: torch.Tensor | Iterable[torch.Tensor], n_embeddings: int | None = None) -> "MemoryBank":
        """Remember embeddings [m, D], or chunks of them; with m known beforehand no second copy is made on the way.

        Raises InputError for none, for values that are not finite, and for embeddings of length zero.
        """
        chunks = [x] if isinstance(x, torch.Tensor) else x
        units = (unit_vectors(finite_matrix(chunk)).to(self.device) for chunk in chunks)
        self.embeddings_ = _gathered(units, n_embeddings)
        self.dim_ = self.embeddings_.shape[1]
        held = self.embeddings_  # not by way of self, which would hold itself then, and its memory
        self._chunks: Callable[[], Iterable[torch.Tensor]] = lambda: held.split(BANK_PER_CHUNK)
        return self

    def fit_streamed(self, read: Callable[[], Iterable[torch.Tensor]], dim: int) -> "MemoryBank":
        """Remember how to ``read`` the embeddings, in chunks [*, dim]; each search reads all of them once.

        The searches raise InputError for embeddings that are not finite or of length zero.
        """
        self.dim_ = dim
        self._chunks = lambda: prefetched(
            unit_vectors(finite_matrix(chunk, dim)).to(self.device) for chunk in _rechunked(read(), BANK_PER_CHUNK)
        )
        return self

    def distances(self, x: torch.Tensor) -> torch.Tensor:
        """Distance [n], float32, of embeddings [n, D] to the nearest remembered one."""
        return self.nearest(x)[0]

    def nearest(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Distance [n] to the nearest remembered embedding and its index [n]; memory is bounded by the chunks."""
        if not hasattr(self, "dim_"):
            raise InputError("The memory bank is empty: call fit first.")
        queries = unit_vectors(finite_matrix(x, self.dim_)).to(self.device)
        best = queries.new_full((len(queries),), -torch.inf)
        index = torch.zeros(len(queries), dtype=torch.int64, device=self.device)
        search = search_on_cpu if self.device.type == "cpu" else _search_on_device
        first = 0
        for chunk in self._chunks():
            search(queries, chunk, first, best, index)
            first += len(chunk)
        return 1 - best, index


def _search_on_device(
    queries: torch.Tensor, bank: torch.Tensor, first: int, best: torch.Tensor, index: torch.Tensor
) -> None:
    """Raise ``best`` [n] and ``index`` [n] where an embedding of ``bank`` (numbered from ``first``) is more similar."""
    for start in range(0, len(queries), ROWS_PER_BLOCK):
        rows = slice(start, start + ROWS_PER_BLOCK)
        similarity, position = (queries[rows] @ bank.T).max(dim=1)
        better = similarity > best[rows]
        best[rows] = torch.where(better, similarity, best[rows])
        index[rows] = torch.where(better, position + first, index[rows])


def search_on_cpu(
    queries: torch.Tensor, bank: torch.Tensor, first: int, best: torch.Tensor, index: torch.Tensor
) -> None:
    """As ``_search_on_device``, in blocks that fit the cache; NumPy's matrix product and argmax are the faster here.

    Each thread has its own blocks of queries and a matrix product of one thread: no waiting for each other.
    """

    def search(rows: slice) -> None:
        x, best_of_rows, index_of_rows = (part[rows].numpy() for part in (queries, best, index))
        block = np.empty((len(x), min(BANK_PER_BLOCK, len(bank))), dtype=np.float32)
        for remembered in _blocks(len(bank), BANK_PER_BLOCK):
            y = bank[remembered].numpy()
            whole = len(y) == block.shape[1]
            similarity = np.matmul(x, y.T, out=block) if whole else np.matmul(x, y.T)
            position = similarity.argmax(axis=1)
            largest = similarity[np.arange(len(x)), position]
            better = largest > best_of_rows
            best_of_rows[better] = largest[better]
            index_of_rows[better] = position[better] + first + remembered.start

    with _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(search, _blocks(len(queries), ROWS_PER_BLOCK)))


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _blocks(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _gathered(chunks: Iterable[torch.Tensor], n: int | None) -> torch.Tensor:
    """All chunks in one tensor, which is filled as they come where their number ``n`` of rows is known."""
    if n is None:
        kept = list(chunks)
        if not kept:
            raise InputError("A memory bank needs at least one embedding; none was given.")
        return torch.cat(kept) if len(kept) > 1 else kept[0]
    whole, first = torch.empty(0), 0
    for chunk in chunks:
        whole = chunk.new_empty((n, chunk.shape[1])) if first == 0 else whole
        whole[first : first + len(chunk)] = chunk
        first += len(chunk)
    return whole


def _rechunked(chunks: Iterable[torch.Tensor], size: int) -> Iterator[torch.Tensor]:
    """The same rows in chunks of ``size``, the last one maybe smaller."""
    kept: list[torch.Tensor] = []
    for chunk in chunks:
        kept.append(chunk)
        while sum(map(len, kept)) >= size:
            joined = torch.cat(kept)
            yield joined[:size]
            kept = [joined[size:]]
    if rest := [chunk for chunk in kept if len(chunk)]:
        yield torch.cat(rest)


def unit_vectors(x: torch.Tensor) -> torch.Tensor:
    """Unit vectors [n, D], float32. Raises InputError for one of length zero."""
    x = x.float()
    if bool((x.norm(dim=1) == 0).any()):
        raise InputError("An embedding has length zero: its cosine similarity is not defined.")
    return functional.normalize(x, dim=1)


def few_shot(n_images: int, shots: int, generator: torch.Generator) -> npt.NDArray[np.int64]:
    """Indices [shots] of training images drawn without replacement. Raises InputError if there are too few."""
    if shots > n_images:
        raise InputError(f"{shots} shots were asked for, but there are only {n_images} normal training images.")
    return np.asarray(torch.randperm(n_images, generator=generator)[:shots].numpy())
