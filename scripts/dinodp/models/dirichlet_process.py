"""Truncated Dirichlet process mixture of Gaussians, fitted by online EM on sufficient statistics.

Source: Schulthess & Konukoglu, MICCAI 2025, arXiv 2509.19997; docs/method.md maps each equation to its function.
"""

import torch

from dinodp.jobs.processes import Group
from dinodp.models.online_mixture import OnlineMixture
from dinodp.options.choices import CONCENTRATION, STEP_RATE, CovarianceType, Schedule


class DirichletProcessMixture(OnlineMixture):
    """Dirichlet process mixture, truncated at ``n_components`` = K; fitted, scored and stored as `OnlineMixture` says.

    ``concentration`` alpha at the start, re-estimated after every step unless ``fix_concentration``.
    """

    def __init__(
        self,
        n_components: int,
        covariance_type: CovarianceType = "diag",
        reg_covar: float | None = None,
        step_schedule: Schedule = "ema",
        step_rate: float = STEP_RATE,
        concentration: float = CONCENTRATION,
        fix_concentration: bool = False,
        device: str = "cpu",
        process_group: Group | None = None,
    ) -> None:
        super().__init__(n_components, covariance_type, reg_covar, step_schedule, step_rate, device, process_group)
        self.concentration = concentration
        self.fix_concentration = fix_concentration

    def _start_sticks(self, uniform: torch.Tensor) -> torch.Tensor:
        """Beta(1, alpha) by its inverse distribution function."""
        sticks = 1 - (1 - uniform) ** (1 / self.concentration)
        sticks[-1] = 1.0
        return sticks

    def _start_concentration(self) -> float:
        return self.concentration

    def _next_concentration(self, tail: torch.Tensor, n: int) -> float:
        """(K-1) / sum_k [psi(n (S0_k + T_k) + alpha + 1) - psi(n T_k + alpha)], T_k the statistics after k."""
        a = self.concentration_
        if self.fix_concentration:
            return a
        terms = torch.digamma(n * (self._s0 + tail) + a + 1) - torch.digamma(n * tail + a)
        return float((self.n_components - 1) / terms[:-1].sum())
