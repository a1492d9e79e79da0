"""Components with full covariance: exact where they can matter, skipped where a bound proves that they cannot.

In the basis of the mixture's own principal directions, with W the inverse Cholesky factor of a covariance S, the
quadratic form (x - m)' S^-1 (x - m) is the squared length of W (x - m). Row i of W needs only the first i coordinates,
so the sum over the first p rows, the form of the marginal in the p leading directions, is a lower bound at (p / D)^2 of
the cost. It grows block by block; a pair of an embedding and a component is left as soon as its bound is out of reach.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

import torch

from dinodp.errors import InputError
from dinodp.models.components import LOG_2PI, NEGLIGIBLE, SLACK, Components

FIRST_BLOCK = 32  # leading directions in which every pair is looked at; each further block doubles them
ROWS_AT_ONCE = 1024  # embeddings whose first block is computed at once: [1024, K 32] floats
COMPONENTS_AT_ONCE = 64


class FullComponents(Components):
    """A covariance matrix per component, [K, D, D]; components of weight zero are never looked at.

    Raises InputError when a covariance is not positive definite.
    """

    default_reg: ClassVar[float] = 1e-3
    rows_per_chunk: ClassVar[int] = 8192  # each component sees few of them
    uses_densities: ClassVar[bool] = False

    def __init__(self, log_weights: torch.Tensor, means: torch.Tensor, covariances: torch.Tensor) -> None:
        super().__init__(log_weights, means, covariances)
        self.used, dim, centred = torch.nonzero(self.weights > 0).flatten(), means.shape[1], means - self.centre
        self._edges = _block_edges(dim)
        self._basis = _principal_directions(log_weights[self.used], centred, covariances, self.used)
        self._rotated = centred[self.used] @ self._basis
        self._whitening = _inverse_factors(covariances, self.used, self._basis)
        log_determinants = -2 * self._whitening.diagonal(dim1=1, dim2=2).log().sum(1)
        self._constant = log_weights[self.used] - 0.5 * (dim * LOG_2PI + log_determinants)

    @staticmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        """[K, D, D]."""
        return k, d, d

    @staticmethod
    def equal(variance: torch.Tensor, k: int) -> torch.Tensor:
        """A diagonal matrix for every component."""
        return torch.diag(variance).expand(k, -1, -1).clone()

    @staticmethod
    def add_second_moment(s2: torch.Tensor, used: torch.Tensor, r: torch.Tensor, centred: torch.Tensor) -> None:
        """Sums of r x x', of each component over the embeddings that it is responsible for."""
        for k, rows in columns_by_row((r > 0).T):
            x = centred[rows]
            s2[k] += (x * r[rows, k, None]).T @ x

    @staticmethod
    def uncentre(s0: torch.Tensor, s1: torch.Tensor, s2: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """s2 + s1 c' + c s1' + s0 c c', in one pass over [K, D, D]."""
        half, c = s1 + s0[:, None] * c / 2, c.expand_as(s1)
        return s2.baddbmm_(torch.stack([half, c], dim=2), torch.stack([c, half], dim=1))

    @staticmethod
    def maximise(s2: torch.Tensor, means: torch.Tensor, norm: torch.Tensor, reg: float) -> torch.Tensor:
        """Second moments minus m m', plus ``reg`` on the diagonal."""
        covariances = (s2 / norm[:, None, None]).baddbmm_(means[:, :, None], means[:, None, :], alpha=-1)
        covariances.diagonal(dim1=1, dim2=2).add_(reg)
        return covariances

    def log_densities(self, centred: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
        """As `Components`; -inf where a responsibility among the components is proven to be below NEGLIGIBLE."""
        is_used = torch.isin(used, self.used)
        columns = torch.searchsorted(self.used, used[is_used])
        out = centred.new_full((len(centred), len(used)), -torch.inf)
        out[:, is_used] = self._values(centred, columns, self._constant[columns], math.log(NEGLIGIBLE)).T
        return out

    def relevant_log_densities(self, centred: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Components`: all of them, since what is negligible is left out pair by pair."""
        every = torch.arange(len(self.weights), device=centred.device)
        return every, self.log_densities(centred, every)

    def nearest_mahalanobis(self, centred: torch.Tensor, densities: torch.Tensor | None = None) -> torch.Tensor:
        """As `Components`."""
        columns = torch.searchsorted(self.used, self.active)
        values = self._values(centred, columns, torch.zeros_like(self._constant[columns]), 0.0)
        return (-2 * values.amax(0)).clamp_min(0).sqrt()

    def _values(self, x: torch.Tensor, columns: torch.Tensor, constant: torch.Tensor, margin: float) -> torch.Tensor:
        """[K', n] of constant - quadratic form / 2: exact, or -inf where proven below a column's largest + margin."""
        x = x @ self._basis
        quadratic = self._first_block(x, columns)
        best = torch.zeros_like(quadratic, dtype=torch.bool)
        best.scatter_(0, (constant[:, None] - 0.5 * quadratic).argmax(0, keepdim=True), True)
        for first, last in self._edges:
            self._add_block(quadratic, x, columns, best, first, last)
        reached = constant[:, None] - 0.5 * quadratic
        threshold = reached.masked_fill(~best, -torch.inf).amax(0) + margin - SLACK
        open_pairs = (reached >= threshold) & ~best
        for first, last in self._edges:
            self._add_block(quadratic, x, columns, open_pairs, first, last)
            reached = constant[:, None] - 0.5 * quadratic
            open_pairs &= reached >= threshold
        return reached.masked_fill_(~(open_pairs | best), -torch.inf)

    def _first_block(self, x: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Quadratic forms [K', n] in the leading directions, of all pairs."""
        size = min(FIRST_BLOCK, x.shape[1])
        factors = self._whitening[columns, :size, :size]
        offset = torch.einsum("kij,kj->ki", factors, self._rotated[columns, :size]).flatten()
        stacked = factors.flatten(0, 1).T.contiguous()
        parts = []
        for rows in x[:, :size].split(ROWS_AT_ONCE):
            whitened = torch.addmm(offset, rows, stacked, beta=-1)
            parts.append(whitened.square_().view(len(rows), -1, size).sum(2))
        return torch.cat(parts).T.contiguous()

    def _add_block(
        self,
        quadratic: torch.Tensor,
        x: torch.Tensor,
        columns: torch.Tensor,
        pairs: torch.Tensor,
        first: int,
        last: int,
    ) -> None:
        """Add the rows ``first`` to ``last`` of W (x - m) to the forms [K', n] of ``pairs`` [K', n]."""
        leading, indices = x[:, :last], columns.tolist()
        for position, rows in columns_by_row(pairs):
            k = indices[position]
            difference = leading[rows].sub_(self._rotated[k, :last])
            squared = (difference @ self._whitening[k, first:last, :last].T).square_().sum(1)
            quadratic[position].index_add_(0, rows, squared)


def _block_edges(dim: int) -> list[tuple[int, int]]:
    """The blocks (first, last) that follow the first one, each twice as far, up to ``dim``."""
    edges = [min(FIRST_BLOCK, dim)]
    while edges[-1] < dim:
        edges.append(min(2 * edges[-1], dim))
    return list(pairwise(edges))


def _principal_directions(
    log_weights: torch.Tensor, means: torch.Tensor, covariances: torch.Tensor, used: torch.Tensor
) -> torch.Tensor:
    """Orthonormal directions [D, D] of the whole mixture, those of largest variance first."""
    share = torch.softmax(log_weights, 0)
    centred = means[used] - share @ means[used]
    scatter = (centred * share[:, None]).T @ centred
    scatter = scatter + (share @ covariances[used].flatten(1)).view_as(scatter)
    directions: torch.Tensor = torch.linalg.eigh(scatter.double())[1]
    return directions.flip(1).to(means.dtype)


def _inverse_factors(covariances: torch.Tensor, used: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Inverse Cholesky factors [used, D, D] of the covariances in the basis."""
    dim = covariances.shape[1]
    inverse = covariances.new_empty((len(used), dim, dim))
    identity = torch.eye(dim, device=covariances.device, dtype=covariances.dtype)
    for first in range(0, len(used), COMPONENTS_AT_ONCE):
        block = used[first : first + COMPONENTS_AT_ONCE]
        factors, failed = torch.linalg.cholesky_ex(basis.T @ (covariances[block] @ basis))
        if bool(failed.any()):
            worst = int(block[failed.nonzero()[0, 0]])
            raise InputError(f"The covariance of component {worst} is not positive definite: raise reg_covar.")
        inverse[first : first + len(block)] = torch.linalg.solve_triangular(
            factors, identity.expand(len(block), -1, -1), upper=False
        )
    return inverse


def columns_by_row(pairs: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """(row, indices of its true columns) of each row of a boolean matrix [m, n] that has any."""
    row, column = pairs.nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=len(pairs)).tolist()
    yield from ((index, columns) for index, columns in enumerate(column.split(counts)) if len(columns))
