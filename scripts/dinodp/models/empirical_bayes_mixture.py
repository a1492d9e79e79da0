"""Empirical Bayes Dirichlet mixture with held-out shrinkage: a mixture of many components that few data do not overfit.

Mean-field variational Bayes of a truncated Dirichlet process mixture of diagonal Gaussians by full passes from a
k-means++ start; its prior by type II maximum likelihood, and once more by subjects that were not fitted. docs/method.md
has the equations and what differs from the paper's mixture.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch

from dinodp.errors import InputError
from dinodp.models.calibrated_components import CalibratedComponents, quadratic_forms
from dinodp.models.full_passes import NO_HELD_OUT, FullPassMixture
from dinodp.models.normal_gamma import NormalGamma, Prior, Statistics
from dinodp.models.row_stream import RowStream
from dinodp.models.stick_breaking import FIRST_ALPHA, Sticks

SMALLEST_INFLATION = 1e-6


@dataclass(frozen=True)
class GaussianPosterior:
    """Of means, precisions and sticks, with the prior that they were found under."""

    gaussians: NormalGamma
    sticks: Sticks

    @classmethod
    def of(cls, statistics: Statistics, prior: Prior, alpha: float) -> Self:
        """With improved hyperparameters; components come in falling order of their sizes."""
        ordered = statistics.in_falling_order()
        return cls(NormalGamma(prior.improved(ordered), ordered), Sticks.of(ordered.n, alpha))

    @property
    def n(self) -> torch.Tensor:
        """Embeddings of each component [K]."""
        return self.gaussians.statistics.n

    @property
    def alpha(self) -> float:
        """Concentration of the sticks."""
        return self.sticks.alpha

    @property
    def nu(self) -> float:
        """Strength of the prior of the variances."""
        return self.gaussians.prior.nu

    def log_joint(self, x: torch.Tensor) -> torch.Tensor:
        """E log pi + E log N [n, K] of embeddings minus their mean."""
        means, variances = self.gaussians.means.to(x.dtype), self.gaussians.variances.to(x.dtype)
        offsets = (self.sticks.log_weights + self.gaussians.log_offsets()).to(x.dtype)
        return quadratic_forms(x, means, variances).mul_(-0.5).add_(offsets)

    def divergence(self) -> float:
        """Kullback-Leibler divergence of the posterior from the prior."""
        return self.gaussians.divergence() + self.sticks.divergence()

    def updated(self, sums: Statistics) -> Self:
        """From the sums of another pass."""
        return self.of(sums, self.gaussians.prior, self.alpha)


class EmpiricalBayesMixture(FullPassMixture, CalibratedComponents):
    """Fit with `fit`, adapt to other subjects with `calibrate`, score with `scores`.

    ``volume_exponent`` is gamma of the calibrated distance; ``options`` are those of `FullPassMixture`. After a fit
    also ``prior_``.
    """

    _posterior: GaussianPosterior

    def __init__(
        self, n_components: int = 500, *, volume_exponent: float = 0.5, device: str = "cpu", **options: Any
    ) -> None:
        FullPassMixture.__init__(self, n_components, device=device, **options)
        CalibratedComponents.__init__(self, volume_exponent, device)

    @property
    def prior_(self) -> Prior:
        """The prior that maximises the likelihood of the training data."""
        return self._posterior.gaussians.prior

    def _seen(self, chunk: torch.Tensor) -> torch.Tensor:
        return chunk - self._mean

    def _no_sums(self, like: torch.Tensor) -> Statistics:
        return Statistics.zeros(like)

    def _first(self, sums: Statistics) -> GaussianPosterior:
        return GaussianPosterior.of(sums, Prior.first(sums), FIRST_ALPHA)

    def _held_out(self, rows: RowStream, nu: float) -> tuple[float, float]:
        """Mean of min_k [Q_k + log|var_k|] after inflation, and the inflation."""
        gaussians = self._posterior.gaussians
        means, variances = gaussians.means.to(self.dtype), gaussians.shrunk(nu)
        volumes, n, quadratic, volume = variances.log().sum(1), 0, 0.0, 0.0
        for chunk in rows:
            forms = quadratic_forms(self._seen(chunk), means, variances.to(self.dtype))
            best = (forms + volumes.to(self.dtype)).argmin(1)
            quadratic += float(forms.gather(1, best[:, None]).double().sum())
            volume += float(volumes[best].sum())
            n += len(chunk)
        if n == 0:
            raise InputError(NO_HELD_OUT)
        d = means.shape[1]
        inflation = max(quadratic / n / d, SMALLEST_INFLATION)
        return d + d * math.log(inflation) + volume / n, inflation

    def _use(self, nu: float, inflation: float) -> None:
        self.nu_, self.inflation_ = nu, inflation
        gaussians = self._posterior.gaussians
        self._set_components(
            self._posterior.sticks.log_mean_weights,
            gaussians.means + self._mean,
            gaussians.shrunk(nu) * inflation,
        )
