"""Gaussian mixture of a fixed number of components: the same online EM without the Dirichlet process prior.

With concentration 1 the stick fractions are S0_k / sum_{j>=k} S0_j, so that the weights are S0_k / sum_j S0_j.
"""

import torch

from dinodp.jobs.processes import Group
from dinodp.models.online_mixture import OnlineMixture
from dinodp.options.choices import STEP_RATE, CovarianceType, Schedule


class GaussianMixture(OnlineMixture):
    """Gaussian mixture of ``n_components`` = K; fitted, scored and stored as `OnlineMixture` says."""

    def __init__(
        self,
        n_components: int,
        covariance_type: CovarianceType = "diag",
        reg_covar: float | None = None,
        step_schedule: Schedule = "ema",
        step_rate: float = STEP_RATE,
        device: str = "cpu",
        process_group: Group | None = None,
    ) -> None:
        super().__init__(n_components, covariance_type, reg_covar, step_schedule, step_rate, device, process_group)

    def _start_sticks(self, uniform: torch.Tensor) -> torch.Tensor:
        """Equal weights."""
        return 1 / torch.arange(self.n_components, 0, -1)

    def _start_concentration(self) -> float:
        return 1.0

    def _next_concentration(self, tail: torch.Tensor, n: int) -> float:
        return 1.0
