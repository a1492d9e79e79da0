"""Gaussian components of a mixture behind one interface, whatever the type of their covariances.

A type of covariance is a subclass of `Components`: what is stored per component, what the M-step sums and solves for,
and log-densities. `COVARIANCE_TYPES` in `online_mixture` names them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as functional

from dinodp.errors import InputError

EPS = float(np.finfo(np.float32).eps)
ACTIVE_WEIGHT = 1e-6
NEGLIGIBLE = EPS * EPS  # a responsibility below this is zero: K of them are lost in float32's rounding of the largest
SLACK = 1.0  # nats, far above float32's rounding of a log-density
LOG_2PI = math.log(2 * math.pi)
ROWS_PER_GPU_CHUNK = 32768  # a GPU waits for the host between chunks; [32768, 500] floats are 63 MiB


class Components(ABC):
    """K weighted Gaussians, log pi_k + log N(x; m_k, S_k), float32.

    ``log_weights`` [K], ``means`` [K, D], ``covariances`` in the `shape` of the type. Embeddings are given minus
    ``centre`` [D], the mean of the mixture: centred, the expanded quadratic form loses fewer digits in float32.
    """

    default_reg: ClassVar[float]  # added to every variance
    rows_per_chunk: ClassVar[int]  # embeddings per matrix product on a CPU: bounds memory at a few [chunk, K] arrays

    def __init__(self, log_weights: torch.Tensor, means: torch.Tensor, covariances: torch.Tensor) -> None:
        self.log_weights, self.means, self.covariances = log_weights, means, covariances
        self.weights = log_weights.exp()
        self.is_active = self.weights > ACTIVE_WEIGHT
        self.active = torch.nonzero(self.is_active).flatten()
        share = self.weights / self.weights.sum().clamp_min(EPS)
        self.centre = share @ means

    # --- what is stored, and the M-step: the same for all components, so without an instance -----------------------

    @staticmethod
    @abstractmethod
    def shape(k: int, d: int) -> tuple[int, ...]:
        """Shape of the covariances, and of the sums of r x x' that they are made from."""

    @staticmethod
    @abstractmethod
    def equal(variance: torch.Tensor, k: int) -> torch.Tensor:
        """Covariances of k components that all have the diagonal ``variance`` [D]."""

    @staticmethod
    @abstractmethod
    def add_second_moment(s2: torch.Tensor, used: torch.Tensor, r: torch.Tensor, centred: torch.Tensor) -> None:
        """Add the sums of r x x' over embeddings [n, D] of the components ``used`` [K'] to ``s2``; r is [n, K']."""

    @staticmethod
    @abstractmethod
    def uncentre(s0: torch.Tensor, s1: torch.Tensor, s2: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Second moments of x from the moments of x - c."""

    @staticmethod
    @abstractmethod
    def maximise(s2: torch.Tensor, means: torch.Tensor, norm: torch.Tensor, reg: float) -> torch.Tensor:
        """Covariances from the second moments, the means [K, D] and the responsibilities' sums ``norm`` [K]."""

    # --- the E-step and scores -------------------------------------------------------------------------------------

    @abstractmethod
    def log_densities(self, centred: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
        """Weighted log-densities [n, K'] of x - centre [n, D] under the components ``used`` [K']."""

    @abstractmethod
    def relevant_log_densities(self, centred: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Components [K'] that no bound proves negligible for x - centre [n, D], and their weighted log-densities."""

    @abstractmethod
    def nearest_mahalanobis(self, centred: torch.Tensor, densities: torch.Tensor | None = None) -> torch.Tensor:
        """Smallest sqrt((x - m)' S^-1 (x - m)) [n] over the active components.

        ``densities``: their weighted log-densities, where they are known and `uses_densities`.
        """

    uses_densities: ClassVar[bool]  # whether `nearest_mahalanobis` follows from the log-densities

    def cosines(self, centred: torch.Tensor) -> torch.Tensor:
        """Cosine similarity [n, K'] to the means of the active components."""
        x = functional.normalize(centred + self.centre, dim=1)
        return x @ functional.normalize(self.means[self.active], dim=1).T

    def nearest_euclidean(self, centred: torch.Tensor) -> torch.Tensor:
        """Euclidean distance [n] to the nearest mean of the active components."""
        means = self.means[self.active] - self.centre
        nearest = torch.addmm(means.square().sum(1), centred, means.T, alpha=-2).argmin(1)
        return (centred - means[nearest]).square_().sum(1).sqrt_()


class HasComponents(ABC):
    """What every fitted mixture shows of its ``components_``."""

    components_: Components

    @abstractmethod
    def _chunks(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Rows of embeddings [n, D] minus the centre, a bounded number at a time."""

    def _require_parameters(self) -> None:
        if not hasattr(self, "components_"):
            raise InputError("The mixture has no parameters yet: call initialize or load_state first.")

    def _checked(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` if it is [n, D] and finite. Raises InputError for anything else, and where nothing was fitted."""
        self._require_parameters()
        return finite_matrix(x, self.means_.shape[1])

    @property
    def means_(self) -> torch.Tensor:
        """Means [K, D]."""
        return self.components_.means

    @property
    def covariances_(self) -> torch.Tensor:
        """Covariances, in the shape of their type."""
        return self.components_.covariances

    @property
    def weights_(self) -> torch.Tensor:
        """Weights [K]."""
        return self.components_.weights

    @property
    def active_(self) -> torch.Tensor:
        """Which components are active [K]: those whose weight is above 1e-6."""
        return self.components_.is_active

    def assign(self, x: torch.Tensor) -> torch.Tensor:
        """Index [n], int64, of the active component with the highest cosine similarity to each embedding [n, D]."""
        x = self._checked(x)
        nearest = [self.components_.cosines(chunk).argmax(1) for chunk in self._chunks(x)]
        return self.components_.active[torch.cat(nearest)]


def posterior(log_densities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Responsibilities [n, K], in the place of the weighted log-densities [n, K], and log-likelihood [n].

    What is below NEGLIGIBLE of the largest becomes zero, which changes a sum by less than K NEGLIGIBLE. It is clamped
    before the exponential: subnormal numbers would make that an order of magnitude slower.
    """
    largest = log_densities.amax(1, keepdim=True)
    relative = log_densities.sub_(largest).clamp_min_(math.log(NEGLIGIBLE)).exp_()
    torch.threshold_(relative, NEGLIGIBLE * (1 + 1e-3), 0.0)
    total = relative.sum(1, keepdim=True)
    return relative.div_(total), (largest + total.log()).squeeze(1)


def rows_at_once(device: torch.device, on_cpu: int) -> int:
    """Embeddings that a device looks at at once."""
    return on_cpu if device.type == "cpu" else ROWS_PER_GPU_CHUNK


def finite_matrix(x: torch.Tensor, dim: int | None = None) -> torch.Tensor:
    """``x`` if it is [n, dim], n > 0, and finite."""
    if x.ndim != 2 or len(x) == 0 or (dim is not None and x.shape[1] != dim):
        raise InputError(
            f"Embeddings have shape {tuple(x.shape)}; [n, {'D' if dim is None else dim}] with n > 0 is needed."
        )
    # a sum is finite unless a value is not, or it overflows: only then look at every value
    if not (bool(torch.isfinite(x.sum())) or bool(torch.isfinite(x).all())):
        raise InputError("Embeddings contain values that are not finite.")
    return x
