"""Gaussian mixture of a fixed number of components: the same online EM without the Dirichlet process prior.

With concentration 1 the stick fractions are S0_k / sum_{j>=k} S0_j, so that the weights are S0_k / sum_j S0_j.
"""

import torch

from dinodp.models.dirichlet_process import DirichletProcessMixture
from dinodp.options.choices import CovarianceType, Init, Schedule


class GaussianMixture(DirichletProcessMixture):
    """Gaussian mixture fitted one mini-batch at a time; parameters and scores as those of the superclass."""

    def __init__(
        self,
        n_components: int,
        covariance_type: CovarianceType = "diag",
        reg_covar: float | None = None,
        step_schedule: Schedule = "ema",
        step_rate: float = 0.2,
        device: str = "cpu",
    ) -> None:
        super().__init__(
            n_components,
            covariance_type,
            reg_covar,
            step_schedule,
            step_rate,
            concentration=1.0,
            fix_concentration=True,
            device=device,
        )

    def initialize(
        self,
        batch: torch.Tensor,
        *,
        generator: torch.Generator,
        init: Init = "spread",
        candidates: torch.Tensor | None = None,
    ) -> None:
        """Start as the superclass does, but with equal weights."""
        super().initialize(batch, generator=generator, init=init, candidates=candidates)
        state = {name: self.state_dict()[name] for name in ("means", "covariances", "concentration")}
        self.load_state({**state, "stick_fractions": 1 / torch.arange(self.n_components, 0, -1)})
