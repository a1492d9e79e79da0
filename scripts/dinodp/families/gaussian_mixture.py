"""Gaussian mixture of K components: the same online EM without the Dirichlet process prior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dinodp.families.mixture import OnlineMixtureOptions

if TYPE_CHECKING:
    from dinodp.models import DirichletProcessMixture


class GaussianMixtureOptions(OnlineMixtureOptions):
    """Gaussian mixture of K components, by the same online EM without the prior."""

    family: Literal["gaussian_mixture"] = "gaussian_mixture"

    def build(self, device: str) -> DirichletProcessMixture:
        """The mixture that the options describe, not yet fitted."""
        from dinodp.models import GaussianMixture

        return GaussianMixture(
            n_components=self.components,
            covariance_type=self.covariance,
            reg_covar=self.reg_covar,
            step_schedule=self.step_schedule,
            step_rate=self.step_rate,
            device=device,
        )
