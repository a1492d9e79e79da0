"""The Dirichlet process mixture: the paper's model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from dinodp.families.mixture import OnlineMixtureOptions
from dinodp.options.base import option
from dinodp.options.choices import CONCENTRATION

if TYPE_CHECKING:
    from dinodp.models import DirichletProcessMixture


class DirichletProcessOptions(OnlineMixtureOptions):
    """Dirichlet process mixture."""

    PAPER: ClassVar[Mapping[str, object]] = {"init": "paper"}
    ANY_VALUE: ClassVar[frozenset[str]] = OnlineMixtureOptions.ANY_VALUE | {"normalise"}  # the paper has both

    family: Literal["dpmm"] = "dpmm"
    concentration: float = option(CONCENTRATION, "Concentration alpha at the start.", gt=0)
    fix_concentration: bool = option(False, "Keep alpha instead of re-estimating it after every step.")

    def build(self, device: str) -> DirichletProcessMixture:
        """The mixture that the options describe, not yet fitted."""
        from dinodp.models import DirichletProcessMixture

        return DirichletProcessMixture(
            n_components=self.components,
            covariance_type=self.covariance,
            reg_covar=self.reg_covar,
            step_schedule=self.step_schedule,
            step_rate=self.step_rate,
            concentration=self.concentration,
            fix_concentration=self.fix_concentration,
            device=device,
        )
