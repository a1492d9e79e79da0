"""Dirichlet process mixture of von Mises-Fisher distributions: components on the sphere, with a concentration each.

EM by full passes from a k-means++ start (`full_passes`): variational sticks, and the most probable directions and
concentrations under a prior of ``nu`` embeddings whose mean is as long as those of the start's clusters are on average.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch.nn import functional

from dinodp.errors import InputError, require_known
from dinodp.models.components import ACTIVE_WEIGHT, finite_matrix, rows_at_once
from dinodp.models.full_passes import NO_HELD_OUT, FullPassMixture
from dinodp.models.row_stream import ROWS_PER_CHUNK, RowStream
from dinodp.models.stick_breaking import FIRST_ALPHA, Sticks
from dinodp.models.von_mises_fisher import KAPPA_RANGE, concentration, log_normaliser, widening
from dinodp.options.choices import SPHERE_SCORES

FIRST_NU = 20.0


@dataclass(frozen=True)
class Resultants:
    """Sums over unit vectors, float64: ``n`` [K] of r, ``s`` [K, D] of r x."""

    n: torch.Tensor
    s: torch.Tensor

    def add(self, r: torch.Tensor, x: torch.Tensor) -> None:
        """Add responsibilities [n, K] of vectors [n, D]."""
        self.n.add_(r.sum(0, dtype=torch.float64))
        self.s.add_((r.T @ x).double())

    def add_labels(self, labels: torch.Tensor, x: torch.Tensor) -> None:
        """Add vectors [n, D] that belong to one component each, ``labels`` int64 [n]."""
        self.n.add_(torch.bincount(labels, minlength=len(self.n)).double())
        self.s.index_add_(0, labels, x.double())

    def in_falling_order(self) -> "Resultants":
        """Components in falling order of n, which maximises the evidence of the sticks."""
        order = torch.argsort(self.n, descending=True, stable=True)
        return Resultants(self.n[order], self.s[order])


@dataclass(frozen=True)
class SpherePosterior:
    """Sticks, directions and concentrations that follow from ``resultants`` and a prior.

    The prior is ``nu`` embeddings in the direction of the component, whose mean has the length ``length``.
    """

    resultants: Resultants
    sticks: Sticks
    length: float
    nu: float

    @classmethod
    def first(cls, resultants: Resultants, nu: float) -> Self:
        """With the mean resultant length within the clusters, and the first concentration of the sticks."""
        length = float(resultants.s.norm(dim=1).sum() / resultants.n.sum())
        ordered = resultants.in_falling_order()
        return cls(ordered, Sticks.of(ordered.n, FIRST_ALPHA), length, nu)

    def updated(self, sums: Resultants) -> Self:
        """From the sums of another pass."""
        ordered = sums.in_falling_order()
        return replace(self, resultants=ordered, sticks=Sticks.of(ordered.n, self.alpha))

    @property
    def n(self) -> torch.Tensor:
        """Embeddings of each component [K]."""
        return self.resultants.n

    @property
    def alpha(self) -> float:
        """Concentration of the sticks."""
        return self.sticks.alpha

    @cached_property
    def directions(self) -> torch.Tensor:
        """Unit vectors [K, D]."""
        return functional.normalize(self.resultants.s, dim=1)

    @cached_property
    def kappas(self) -> torch.Tensor:
        """[K]: of the mean length of a component's and the prior's embeddings together."""
        lengths = (self.resultants.s.norm(dim=1) + self.nu * self.length) / (self.n + self.nu)
        kappas = concentration(self.resultants.s.shape[1], lengths.cpu().numpy())
        return torch.from_numpy(kappas).to(lengths)

    def log_joint(self, x: torch.Tensor) -> torch.Tensor:
        """E log pi + log density [n, K] of unit vectors [n, D]."""
        kappas = self.kappas
        return log_densities(x, self.directions, kappas, self.sticks.log_weights + log_peaks(kappas, x.shape[1]))

    def divergence(self) -> float:
        """Kullback-Leibler divergence of the sticks, minus the log-density of the prior's embeddings."""
        kappas = self.kappas
        prior = log_peaks(kappas, self.resultants.s.shape[1]) - kappas * (1 - self.length)
        return self.sticks.divergence() - self.nu * float(prior.sum())


def log_peaks(kappas: torch.Tensor, d: int) -> torch.Tensor:
    """Log-density at the direction of each component [K]."""
    return torch.from_numpy(log_normaliser(d, kappas.cpu().numpy())).to(kappas) + kappas


def log_densities(
    x: torch.Tensor, directions: torch.Tensor, kappas: torch.Tensor, offsets: torch.Tensor
) -> torch.Tensor:
    """offset_k - kappa_k (1 - mu_k'x) [n, K], in the dtype of x; small differences, so that float32 does."""
    cosine = x @ directions.to(x.dtype).T
    return cosine.sub_(1).mul_(kappas.to(x.dtype)).add_(offsets.to(x.dtype))


class VonMisesFisherMixture(FullPassMixture):
    """Fit with `fit`, adapt to other subjects with `calibrate`, score with `scores`; of an embedding only its direction
    counts. ``options`` are those of `FullPassMixture`.

    After a fit ``weights_`` [K], ``means_`` [K, D] (unit vectors) and ``kappas_`` [K], float32.
    """

    _posterior: SpherePosterior
    weights_: torch.Tensor
    means_: torch.Tensor
    kappas_: torch.Tensor

    def _seen(self, chunk: torch.Tensor) -> torch.Tensor:
        return functional.normalize(chunk, dim=1)

    def _no_sums(self, like: torch.Tensor) -> Resultants:
        zeros = torch.zeros_like(like, dtype=torch.float64)
        return Resultants(zeros[:, 0].clone(), zeros)

    def _first(self, sums: Resultants) -> SpherePosterior:
        return SpherePosterior.first(sums, FIRST_NU)

    def _held_out(self, rows: RowStream, nu: float) -> tuple[float, float]:
        """Mean of -max_k log-density after the kappas are divided by the factor, and the factor."""
        posterior = replace(self._posterior, nu=nu)
        directions, kappas, d = posterior.directions, posterior.kappas, len(self._mean)
        peaks, won, falls = log_peaks(kappas, d), torch.zeros_like(kappas), 0.0
        for chunk in rows:
            found, best = log_densities(self._seen(chunk), directions, kappas, peaks).max(1)
            won += torch.bincount(best, minlength=len(won))
            falls += float((peaks[best] - found.double()).sum())
        n = float(won.sum())
        if n == 0:
            raise InputError(NO_HELD_OUT)
        inflation = widening(d, kappas.cpu().numpy(), (won / n).cpu().numpy(), falls / n)
        return falls / n / inflation - float(won @ log_peaks(kappas / inflation, d)) / n, inflation

    def _use(self, nu: float, inflation: float) -> None:
        self.nu_, self.inflation_ = nu, inflation
        posterior = replace(self._posterior, nu=nu)
        kappas = (posterior.kappas / inflation).clamp(*KAPPA_RANGE)
        self._set_parameters(posterior.sticks.log_mean_weights, posterior.directions, kappas)

    def _set_parameters(self, log_weights: torch.Tensor, means: torch.Tensor, kappas: torch.Tensor) -> None:
        self.log_weights_, self.means_, self.kappas_ = (
            values.to(self.device, torch.float32) for values in (log_weights, means, kappas)
        )
        self.weights_ = self.log_weights_.exp()

    @property
    def covariances_(self) -> torch.Tensor:
        """Variances along the sphere [K, D] of components that are narrow: 1 / kappa."""
        return (1 / self.kappas_)[:, None].expand_as(self.means_)

    @property
    def active_(self) -> torch.Tensor:
        """Which components are active [K]: those whose weight is above 1e-6."""
        return self.weights_ > ACTIVE_WEIGHT

    def scores(self, x: torch.Tensor, names: Sequence[str] = SPHERE_SCORES) -> dict[str, torch.Tensor]:
        """Scores [n], float32, of embeddings [n, D], higher is more anomalous.

        ``log_likelihood`` is -log sum_k pi_k C(kappa_k) exp(kappa_k mu_k'x), ``scaled_cosine``
        min_k kappa_k (1 - mu_k'x). Raises InputError for another name.
        """
        for name in names:
            require_known("score of a von Mises-Fisher mixture", name, SPHERE_SCORES)
        zeros = torch.zeros_like(self.kappas_)
        offsets = {"log_likelihood": self.log_weights_ + log_peaks(self.kappas_.double(), self.means_.shape[1])}
        reduce = {"log_likelihood": torch.logsumexp, "scaled_cosine": torch.amax}
        return {
            name: torch.cat([-reduce[name](part, dim=1) for part in self._densities(x, offsets.get(name, zeros))])
            for name in names
        }

    def assign(self, x: torch.Tensor) -> torch.Tensor:
        """Index [n], int64, of the active component with the highest cosine similarity to each embedding [n, D]."""
        active = torch.nonzero(self.active_).flatten()
        return active[torch.cat([(chunk @ self.means_[active].T).argmax(1) for chunk in self._unit_vectors(x)])]

    def _densities(self, x: torch.Tensor, offsets: torch.Tensor) -> Iterator[torch.Tensor]:
        for chunk in self._unit_vectors(x):
            yield log_densities(chunk, self.means_, self.kappas_, offsets)

    def _unit_vectors(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Directions of finite embeddings [n, D], a bounded number at a time."""
        for chunk in finite_matrix(x, self.means_.shape[1]).split(rows_at_once(self.device, ROWS_PER_CHUNK)):
            yield self._seen(chunk.to(self.device, torch.float32))

    def state_dict(self) -> dict[str, Any]:
        """What scoring needs, and the numbers that say how it was found."""
        return {
            "log_weights": self.log_weights_.cpu(),
            "means": self.means_.cpu(),
            "kappas": self.kappas_.cpu(),
            "counts": self.counts_.cpu(),
            "nu": self.nu_,
            "inflation": self.inflation_,
            "concentration": self.alpha_,
        }

    def load_state(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave, to score with. Raises InputError when shapes do not fit each other."""
        weights, means, kappas, self.counts_ = (
            torch.as_tensor(np.array(state[key])) for key in ("log_weights", "means", "kappas", "counts")
        )
        if means.ndim != 2 or weights.shape != means.shape[:1] or kappas.shape != weights.shape:
            shapes = ", ".join(str(tuple(values.shape)) for values in (weights, means, kappas))
            raise InputError(f"Log-weights, means and kappas have shapes {shapes}; [K], [K, D], [K] are needed.")
        self.nu_, self.inflation_, self.alpha_ = (float(state[key]) for key in ("nu", "inflation", "concentration"))
        self._set_parameters(weights, means, kappas)
        return self
