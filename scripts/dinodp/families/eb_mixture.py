"""Empirical Bayes Dirichlet mixture with held-out shrinkage: the project's own mixture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from dinodp.families.full_passes import FullPassOptions
from dinodp.families.soundness import Stored
from dinodp.options.base import option
from dinodp.options.choices import CALIBRATED_SCORES

if TYPE_CHECKING:
    from dinodp.families.soundness import Layout
    from dinodp.models import EmpiricalBayesMixture


class EmpiricalBayesOptions(FullPassOptions):
    """Empirical Bayes Dirichlet mixture with held-out shrinkage: full passes of variational EM from k-means++.

    Its `background` is `leave_out` unless the entry says otherwise.
    """

    SCORES: ClassVar[tuple[str, ...]] = CALIBRATED_SCORES

    family: Literal["eb_mixture"] = "eb_mixture"
    volume_exponent: float = option(
        0.5, "Of the calibrated distance: 0 is the Mahalanobis distance, 1 ranks as the best component's density.", ge=0
    )

    def fit_options(self) -> dict[str, Any]:
        """No fit depends on the exponent."""
        return {key: value for key, value in super().fit_options().items() if key != "volume_exponent"}

    def build(self, device: str) -> EmpiricalBayesMixture:
        """The mixture that the options describe, not yet fitted."""
        from dinodp.models import EmpiricalBayesMixture

        return EmpiricalBayesMixture(**self.sizes(), volume_exponent=self.volume_exponent, device=device)

    def layout(self, dim: int) -> Layout:
        """Weights, means and variances of at most so many components, and how they were found."""
        return {
            "log_weights": Stored((None,), most=1e-3),
            "means": Stored((None, dim)),
            "variances": Stored((None, dim), positive=True),
            "counts": Stored((None,), 0),
            "nu": Stored((), positive=True),
            "inflation": Stored((), positive=True),
            "concentration": Stored((), positive=True),
        }
