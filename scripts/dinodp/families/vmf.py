"""Mixture of von Mises-Fisher distributions: the natural family on the sphere, a rival of the project's own mixture."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from dinodp.families.full_passes import FullPassOptions
from dinodp.families.soundness import Stored
from dinodp.options.choices import SPHERE_SCORES

if TYPE_CHECKING:
    from dinodp.families.soundness import Layout
    from dinodp.models import VonMisesFisherMixture


class VonMisesFisherOptions(FullPassOptions):
    """Dirichlet process mixture of von Mises-Fisher distributions: fitted as `eb_mixture`, one concentration each.

    Its `background` is `leave_out` unless the entry says otherwise.
    """

    SCORES: ClassVar[tuple[str, ...]] = SPHERE_SCORES

    family: Literal["vmf"] = "vmf"

    def build(self, device: str) -> VonMisesFisherMixture:
        """The mixture that the options describe, not yet fitted."""
        from dinodp.models import VonMisesFisherMixture

        return VonMisesFisherMixture(**self.sizes(), device=device)

    def layout(self, dim: int) -> Layout:
        """Weights, directions and concentrations of at most so many components, and how they were found."""
        return {
            "log_weights": Stored((None,), most=1e-3),
            "means": Stored((None, dim), -1.001, 1.001),
            "kappas": Stored((None,), positive=True),
            "counts": Stored((None,), 0),
            "nu": Stored((), positive=True),
            "inflation": Stored((), positive=True),
            "concentration": Stored((), positive=True),
        }
