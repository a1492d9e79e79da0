"""What mixtures of Gaussians share: their options, online EM, and scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dinodp.families.base import FitTask, Fitted, Source
from dinodp.families.epochs import BatchOptions, EpochOptions
from dinodp.families.soundness import Stored
from dinodp.options.base import option
from dinodp.options.choices import MIXTURE_SCORES, REG_COVAR, STEP_RATE, CovarianceType, Init, Schedule

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp.families.soundness import Layout
    from dinodp.models.online_mixture import OnlineMixture
    from dinodp.store import Maps


class MixtureOptions(EpochOptions):
    """Mixtures; their files hold all parameters and sufficient statistics."""

    SCORES: ClassVar[tuple[str, ...]] = MIXTURE_SCORES
    HAS_COMPONENTS: ClassVar[bool] = True

    covariance: CovarianceType = option("diag", "Covariance type of the components.")
    reg_covar: float = option(REG_COVAR, "Added to every variance (write 1.0e-6, not 1e-6).", gt=0)

    def build(self, device: str) -> OnlineMixture:
        """The mixture that the options describe, not yet fitted."""
        raise NotImplementedError

    def layout(self, dim: int) -> Layout:
        """Parameters and sufficient statistics; stick fractions from 0 to 1 give weights that sum to at most 1."""
        k = self.components
        spread = {"diag": (k, dim), "spherical": (k,), "full": (k, dim, dim)}[self.covariance]
        return {
            "stick_fractions": Stored((k,), 0, 1),
            "means": Stored((k, dim)),
            "covariances": Stored(spread, positive=self.covariance != "full"),  # `FullComponents` checks a matrix
            "concentration": Stored((), positive=True),
            "s0": Stored((k,), 0),
            "s1": Stored((k, dim)),
            "s2": Stored(spread),
            "step_count": Stored((), 0, kind="i"),
        }

    def load(self, state: Mapping[str, Any], train: Source, *, seed: int, device: str) -> Mixture:
        """The mixture of a model file."""
        mixture = self.build(device)
        mixture.load_state(state)
        return Mixture(mixture, self.scores)


class OnlineMixtureOptions(BatchOptions, MixtureOptions):
    """Mixtures fitted by online EM over mini-batches of images."""

    SHARES_FIT: ClassVar[bool] = True

    step_schedule: Schedule = option("ema", "Step size: constant `step_rate`, or t^-step_rate.")
    step_rate: float = option(STEP_RATE, "Step size or its exponent.", gt=0, le=1)
    init: Init = option("spread", "Means start from the first batch, or from the whole training set.")

    def fit(self, task: FitTask) -> Fitted:
        """Online EM, keeping the epoch with the best validation likelihood."""
        from dinodp.families.fitting import fit_mixture
        from dinodp.jobs.processes import current_group

        mixture = self.build(task.device)
        mixture.process_group = current_group()
        history = fit_mixture(
            mixture,
            task.train,
            task.valid,
            epochs=self.epochs,
            images_per_batch=self.images_per_batch,
            generator=task.generator,
            init=self.init,
            checkpoint=task.checkpoint,
        )
        return fitted(mixture, history.arrays())

    def go_on(self, state: Mapping[str, Any], task: FitTask, n_before: int) -> Fitted:
        """One pass over the new images, with steps in which each image, old or new, has the same weight."""
        from dinodp.families.fitting import continue_mixture

        mixture = self.build(task.device)
        mixture.load_state(state)
        history = continue_mixture(
            mixture,
            task.train,
            task.valid,
            n_before=n_before,
            images_per_batch=self.images_per_batch,
            generator=task.generator,
        )
        return fitted(mixture, history.arrays())


class Mixture:
    """A fitted mixture and its scores."""

    def __init__(self, mixture: OnlineMixture, names: Sequence[str]) -> None:
        self.mixture, self.names = mixture, names

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Distances to the nearest active component and negative log-likelihood."""
        from dinodp.families.scores import score_maps

        return score_maps(self.mixture.scores(tokens.flatten(0, 2), self.names), tokens, self.names)


def fitted(mixture: OnlineMixture, history: Mapping[str, Any]) -> Fitted:
    """What a fit of a mixture gives back."""
    state = {name: np.asarray(value) for name, value in mixture.state_dict().items()}
    return Fitted(state, history, int(mixture.active_.sum()))
