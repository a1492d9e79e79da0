"""Components whose covariance is a diagonal, or one variance: all of it is matrix products."""

import math
from abc import abstractmethod
from typing import ClassVar

import torch

from dinodp.models.components import LOG_2PI, NEGLIGIBLE, SLACK, Components
from dinodp.options.choices import REG_COVAR

ROUNDING = 1e-5  # of a length, far above float32's


class SeparableComponents(Components):
    """Covariances with a variance per dimension, ``variances`` [K, D], or for all dimensions, [K, 1]."""

    default_reg: ClassVar[float] = REG_COVAR
    rows_per_chunk: ClassVar[int] = 2048
    uses_densities: ClassVar[bool] = True

    def __init__(self, log_weights: torch.Tensor, means: torch.Tensor, covariances: torch.Tensor) -> None:
        super().__init__(log_weights, means, covariances)
        variances, d = self._variances(covariances), means.shape[1]
        self._precisions = 1 / variances
        log_determinants = variances.double().log().sum(1) * (d / variances.shape[1])
        self._log_peaks = log_weights - 0.5 * (d * LOG_2PI + log_determinants)  # at the mean, [K]

    @staticmethod
    @abstractmethod
    def _variances(covariances: torch.Tensor) -> torch.Tensor:
        """The covariances as [K, D] or [K, 1]."""

    def relevant_log_densities(self, centred: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Components`.

        (x - m)' S^-1 (x - m) >= (|x| - |m|)^2 / largest variance: where that leaves the log-density of a component
        below NEGLIGIBLE times the best active one's for every x, its responsibilities are zero and it is left out.
        """
        densities = self.log_densities(centred, self.active)
        lengths, means = (centred + self.centre).norm(dim=1), self.means.norm(dim=1)
        gaps = torch.maximum(lengths.min() - means, means - lengths.max()) - ROUNDING * (lengths.max() + means)
        bounds = self._log_peaks - 0.5 * gaps.clamp_min(0).square() * self._precisions.amin(1)
        reached = bounds >= densities.amax(1).min() + math.log(NEGLIGIBLE) - SLACK
        others = torch.nonzero(reached & ~self.is_active).flatten()
        if len(others):
            densities = torch.cat([densities, self.log_densities(centred, others)], dim=1)
        return torch.cat([self.active, others]), densities

    def nearest_mahalanobis(self, centred: torch.Tensor, densities: torch.Tensor | None = None) -> torch.Tensor:
        """As `Components`: nearest by the log-densities, distance from the difference."""
        densities = self.log_densities(centred, self.active) if densities is None else densities
        nearest = self.active[(densities - self._log_peaks[self.active].float()).argmax(1)]
        return ((centred + self.centre - self.means[nearest]).square_() * self._precisions[nearest]).sum(1).sqrt_()


class DiagonalComponents(SeparableComponents):
    """A variance per component and dimension, [K, D]."""

    @staticmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        """[K, D]."""
        return k, d

    @staticmethod
    def equal(variance: torch.Tensor, k: int) -> torch.Tensor:
        """The variance for every component."""
        return variance.expand(k, -1).clone()

    @staticmethod
    def _variances(covariances: torch.Tensor) -> torch.Tensor:
        return covariances

    def log_densities(self, centred: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
        """As `Components`: -(x - m)^2 / (2 s^2) = x m/s^2 - x^2/(2 s^2) - m^2/(2 s^2), two matrix products."""
        means, precisions, peaks = self.means[used] - self.centre, self._precisions[used], self._log_peaks[used]
        constant = peaks - 0.5 * (means.square() * precisions).double().sum(1)
        out = torch.addmm(constant.float(), centred, (means * precisions).T)
        return out.addmm_(centred.square(), precisions.T, alpha=-0.5)

    @staticmethod
    def add_second_moment(s2: torch.Tensor, used: torch.Tensor, r: torch.Tensor, centred: torch.Tensor) -> None:
        """Sums of r x^2 per dimension."""
        s2.index_add_(0, used, (r.T @ centred.square()).double())

    @staticmethod
    def uncentre(s0: torch.Tensor, s1: torch.Tensor, s2: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """s2 + 2 s1 c + s0 c^2."""
        return s2 + 2 * s1 * c + s0[:, None] * c.square()

    @staticmethod
    def maximise(s2: torch.Tensor, means: torch.Tensor, norm: torch.Tensor, reg: float) -> torch.Tensor:
        """A variance is never below ``reg`` but by rounding, which the clamp removes."""
        return (s2 / norm[:, None] - means.square() + reg).clamp_min(reg)


class SphericalComponents(SeparableComponents):
    """One variance per component, [K]: the mean of the diagonal."""

    @staticmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        """[K]."""
        return (k,)

    @staticmethod
    def equal(variance: torch.Tensor, k: int) -> torch.Tensor:
        """The mean of the variance for every component."""
        return variance.mean().expand(k).clone()

    @staticmethod
    def _variances(covariances: torch.Tensor) -> torch.Tensor:
        return covariances[:, None]

    def log_densities(self, centred: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
        """As `Components`: |x - m|^2 = x^2 + m^2 - 2 x m."""
        means, precisions, peaks = self.means[used] - self.centre, self._precisions[used], self._log_peaks[used]
        squared = centred.square().sum(1, keepdim=True) + means.square().sum(1) - 2 * centred @ means.T
        return peaks.float() - 0.5 * squared.clamp_min_(0) * precisions[:, 0]

    @staticmethod
    def add_second_moment(s2: torch.Tensor, used: torch.Tensor, r: torch.Tensor, centred: torch.Tensor) -> None:
        """Sums of r x^2, averaged over the dimensions."""
        s2.index_add_(0, used, (r.T @ centred.square().mean(1)).double())

    @staticmethod
    def uncentre(s0: torch.Tensor, s1: torch.Tensor, s2: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """s2 + 2 s1 c + s0 c^2, averaged over the dimensions."""
        return s2 + 2 * (s1 * c).mean(1) + s0 * c.square().mean()

    @staticmethod
    def maximise(s2: torch.Tensor, means: torch.Tensor, norm: torch.Tensor, reg: float) -> torch.Tensor:
        """A variance is never below ``reg`` but by rounding, which the clamp removes."""
        return (s2 / norm - means.square().mean(1) + reg).clamp_min(reg)
