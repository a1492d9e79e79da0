"""Gaussian components with a Normal-gamma prior per component and dimension, which type II maximum likelihood finds.

    lambda_kd ~ Gamma(nu / 2, nu tau_d / 2);  mu_kd ~ N(0, 1 / (kappa lambda_kd));  x_d | k ~ N(mu_kd, 1 / lambda_kd)

of embeddings minus their mean. Sources: Bishop 2006, section 10.2 (posterior); MacKay, Neural Computation 4, 1992
(type II maximum likelihood). docs/method.md has the equations.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch

VARIANCE_FLOOR = 1e-6  # of tau: float16 storage of unit vectors alone gives about 1e-10
NU_RANGE = (1.0, 1e4)
KAPPA_RANGE = (1e-6, 1e2)
NU_FACTORS = (*(math.exp(step / 20) for step in range(-6, 7)), 1.0)  # of nu, tried in each round
ROUNDS = 5  # of the prior, per pass


@dataclass(frozen=True)
class Statistics:
    """Sums over the data, float64: ``n`` [K] of r; ``s1``, ``s2`` [K, D] of r x and r x^2, x minus the mean of all."""

    n: torch.Tensor
    s1: torch.Tensor
    s2: torch.Tensor

    @classmethod
    def zeros(cls, like: torch.Tensor) -> Self:
        """All zero, for components with means ``like`` these [K, D]."""
        zeros = torch.zeros_like(like, dtype=torch.float64)
        return cls(zeros[:, 0].clone(), zeros.clone(), zeros)

    def add(self, r: torch.Tensor, x: torch.Tensor) -> None:
        """Add responsibilities [n, K] of vectors [n, D]."""
        self.n.add_(r.sum(0, dtype=torch.float64))
        self.s1.add_((r.T @ x).double())
        self.s2.add_((r.T @ x.square()).double())

    def add_labels(self, labels: torch.Tensor, x: torch.Tensor) -> None:
        """Add vectors [n, D] that belong to one component each, ``labels`` int64 [n]."""
        self.n.add_(torch.bincount(labels, minlength=len(self.n)).double())
        self.s1.index_add_(0, labels, x.double())
        self.s2.index_add_(0, labels, x.double().square())

    def in_falling_order(self) -> "Statistics":
        """Components in falling order of n, which maximises the evidence of the sticks."""
        order = torch.argsort(self.n, descending=True, stable=True)
        return Statistics(self.n[order], self.s1[order], self.s2[order])

    def scatter(self, kappa: float) -> torch.Tensor:
        """[K, D]: sum r x^2 - s1^2 / (kappa + n), the scatter about the mean and the prior mean's part at once."""
        norm = (self.n + kappa).clamp_min(1e-300)[:, None]
        return (self.s2 - self.s1.square() / norm).clamp_min(0)


@dataclass(frozen=True)
class Prior:
    """``nu``, ``kappa`` > 0 and ``tau`` [D], float64: strength, precision of the mean, and the typical variances."""

    nu: float
    kappa: float
    tau: torch.Tensor

    @classmethod
    def first(cls, statistics: Statistics, nu: float = 20.0, kappa: float = 0.01) -> Self:
        """With the pooled variance within the components."""
        pooled = statistics.scatter(0.0).sum(0) / statistics.n.sum()
        return cls(nu, kappa, pooled.clamp_min(VARIANCE_FLOOR))

    def improved(self, statistics: Statistics) -> "Prior":
        """After a few rounds of updates, none of which lowers the marginal likelihood of the statistics."""
        prior = self
        for _ in range(ROUNDS):
            prior = replace(prior, kappa=_kappa(prior, statistics))
            scatter = statistics.scatter(prior.kappa)
            prior = replace(prior, tau=_tau(prior, statistics.n, scatter))
            prior = replace(prior, nu=_nu(prior, statistics.n, scatter))
        return prior


def _precisions(prior: Prior, n: torch.Tensor, scatter: torch.Tensor) -> torch.Tensor:
    """Expected precisions [K, D]."""
    return (prior.nu + n)[:, None] / (prior.nu * prior.tau + scatter)


def _kappa(prior: Prior, statistics: Statistics) -> float:
    """One EM step: 1 / mean over components and dimensions of E[lambda mu^2]."""
    kappas = (prior.kappa + statistics.n)[:, None]
    precisions = _precisions(prior, statistics.n, statistics.scatter(prior.kappa))
    expected = precisions * (statistics.s1 / kappas).square() + 1 / kappas
    return min(max(1 / float(expected.mean()), KAPPA_RANGE[0]), KAPPA_RANGE[1])


def _tau(prior: Prior, n: torch.Tensor, scatter: torch.Tensor) -> torch.Tensor:
    """One EM step: the harmonic mean [D] of the components' variances."""
    return (1 / _precisions(prior, n, scatter).mean(0)).clamp_min(VARIANCE_FLOOR)


def _nu(prior: Prior, n: torch.Tensor, scatter: torch.Tensor) -> float:
    """The best of a few values about the present one."""
    tried: list[float] = [min(max(prior.nu * factor, NU_RANGE[0]), NU_RANGE[1]) for factor in NU_FACTORS]
    return max(tried, key=lambda nu: _log_marginal(nu, prior.tau, n, scatter))


def _log_marginal(nu: float, tau: torch.Tensor, n: torch.Tensor, scatter: torch.Tensor) -> float:
    """log p(statistics | nu, tau) up to terms without them."""
    shape, shape0, rate0 = (nu + n)[:, None] / 2, nu / 2, nu * tau / 2
    norms = tau.numel() * (torch.lgamma(shape).sum() - len(n) * math.lgamma(shape0))
    return float(norms + (shape0 * rate0.log() - shape * (rate0 + scatter / 2).log()).sum())


@dataclass(frozen=True)
class NormalGamma:
    """The posterior of means and precisions under a prior, given the statistics; all float64."""

    prior: Prior
    statistics: Statistics

    @cached_property
    def scatter(self) -> torch.Tensor:
        """[K, D], about the posterior means."""
        return self.statistics.scatter(self.prior.kappa)

    @cached_property
    def kappas(self) -> torch.Tensor:
        """kappa + n [K]."""
        return self.prior.kappa + self.statistics.n

    @cached_property
    def means(self) -> torch.Tensor:
        """[K, D]."""
        return self.statistics.s1 / self.kappas[:, None]

    @cached_property
    def variances(self) -> torch.Tensor:
        """[K, D]: one over the expected precisions."""
        return self.shrunk(self.prior.nu)

    def shrunk(self, nu: float) -> torch.Tensor:
        """Variances [K, D] with another strength of the prior."""
        return (nu * self.prior.tau + self.scatter) / (nu + self.statistics.n)[:, None]

    def log_offsets(self) -> torch.Tensor:
        """What does not depend on x in E log N(x; mu_k, 1 / lambda_k) [K]."""
        d, half = self.means.shape[1], (self.prior.nu + self.statistics.n) / 2
        dimension = torch.digamma(half) - half.log() - math.log(2 * math.pi) - 1 / self.kappas
        return 0.5 * (d * dimension - self.variances.log().sum(1))

    def divergence(self) -> float:
        """Kullback-Leibler divergence of the posterior from the prior."""
        shape, shape0 = (self.prior.nu + self.statistics.n)[:, None] / 2, self.means.new_tensor(self.prior.nu / 2)
        rate, rate0 = shape * self.variances, shape0 * self.prior.tau
        gamma = (shape - shape0) * torch.digamma(shape) - torch.lgamma(shape) + torch.lgamma(shape0)
        gamma = gamma + shape0 * (rate.log() - rate0.log()) + shape * (rate0 - rate) / rate
        ratio = self.prior.kappa / self.kappas[:, None]
        normal = ratio - 1 - ratio.log() + self.prior.kappa * self.means.square() / self.variances
        return float(gamma.sum() + 0.5 * normal.sum())
