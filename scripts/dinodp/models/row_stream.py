"""Embeddings that are read anew for every pass, so that memory does not grow with their number."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from dinodp.errors import InputError
from dinodp.models.components import finite_matrix, rows_at_once

ROWS_PER_CHUNK = 4096  # on a CPU
Reader = Callable[[], Iterable[torch.Tensor]]


@dataclass(frozen=True)
class RowStream:
    """Embeddings [n, D] of ``read()``, always the same in the same order, as chunks in ``dtype`` on ``device``.

    Iterating raises InputError for values that are not finite, or other than ``dim`` columns.
    """

    read: Reader
    dtype: torch.dtype
    device: torch.device
    dim: int | None = None

    def __iter__(self) -> Iterator[torch.Tensor]:
        for chunk in self.read():
            for part in finite_matrix(chunk, self.dim).split(rows_at_once(self.device, ROWS_PER_CHUNK)):
                yield part.to(self.device, self.dtype)

    def count_and_mean(self) -> tuple[int, torch.Tensor]:
        """n, and the mean [D]. Raises InputError for no rows, or chunks of different widths."""
        n, total = 0, None
        for chunk in self:
            if total is not None and chunk.shape[1] != len(total):
                raise InputError(f"Embeddings have {len(total)} dimensions and then {chunk.shape[1]}.")
            sums = chunk.double().sum(0)
            n, total = n + len(chunk), sums if total is None else total + sums
        if total is None:
            raise InputError("There is no embedding to fit on.")
        return n, (total / n).to(self.dtype)

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows with these rising numbers, int64 [m]."""
        found, first = [], 0
        for chunk in self:
            inside = rows[(rows >= first) & (rows < first + len(chunk))] - first
            found.append(chunk[inside])
            first += len(chunk)
        return torch.cat(found)
