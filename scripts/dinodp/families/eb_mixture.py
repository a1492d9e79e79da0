"""Empirical Bayes Dirichlet mixture with held-out shrinkage: the project's own mixture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from dinodp.families.base import FitTask, Fitted, ModelOptions, Source
from dinodp.jobs.logs import logger
from dinodp.options.base import option
from dinodp.options.choices import CALIBRATED_SCORES, Background

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp.models import EmpiricalBayesMixture
    from dinodp.store import Maps

OWNED = 0.5  # embeddings that a component explains before it counts as active


class EmpiricalBayesOptions(ModelOptions):
    """Empirical Bayes Dirichlet mixture with held-out shrinkage: full passes of variational EM from k-means++.

    Its `background` is `leave_out` unless the entry says otherwise.
    """

    SCORES: ClassVar[tuple[str, ...]] = CALIBRATED_SCORES
    HAS_COMPONENTS: ClassVar[bool] = True

    family: Literal["eb_mixture"] = "eb_mixture"
    background: Background = option(
        "leave_out", "As of every model; what is black in all images would take components that anatomy needs."
    )
    components: int = option(500, "Truncation level K; fewer where there are fewer different embeddings.", ge=2)
    epochs: int = option(12, "Passes of variational EM over all training embeddings.", ge=1)
    lloyd_passes: int = option(4, "Passes of spherical k-means before them.", ge=0)
    start_embeddings: int = option(20_000, "Embeddings that k-means++ sees, at least 6 K.", ge=1)
    volume_exponent: float = option(
        0.5, "Of the calibrated distance: 0 is the Mahalanobis distance, 1 ranks as the best component's density.", ge=0
    )

    def fit_options(self) -> dict[str, Any]:
        """No fit depends on the exponent."""
        return {key: value for key, value in super().fit_options().items() if key != "volume_exponent"}

    def build(self, device: str) -> EmpiricalBayesMixture:
        """The mixture that the options describe, not yet fitted."""
        from dinodp.models import EmpiricalBayesMixture

        return EmpiricalBayesMixture(
            self.components,
            passes=self.epochs,
            lloyd_passes=self.lloyd_passes,
            start_embeddings=self.start_embeddings,
            volume_exponent=self.volume_exponent,
            device=device,
        )

    def fit(self, task: FitTask) -> Fitted:
        """Fit to the training images; the strength of the prior is then chosen by the validation images."""
        mixture = self.build(task.device)
        mixture.fit(lambda: _read(task.train), task.generator)
        logger.info("%d components, bound %.2f, nu %.1f", len(mixture.means_), mixture.bounds_[-1], mixture.nu_)
        mixture.calibrate(lambda: _read(task.valid))
        logger.info("held-out images: nu %g, variances times %.3f", mixture.nu_, mixture.inflation_)
        history = {"pass": np.arange(1, self.epochs + 1), "bound": np.array(mixture.bounds_)}
        state = {name: np.asarray(value) for name, value in mixture.state_dict().items()}
        return Fitted(state, history, int((mixture.counts_ > OWNED).sum()))

    def load(self, state: Mapping[str, Any], train: Source, *, seed: int, device: str) -> CalibratedMixture:
        """The mixture of a model file."""
        return CalibratedMixture(self.build(device).load_state(state), self.scores)


class CalibratedMixture:
    """A fitted mixture and its scores."""

    def __init__(self, mixture: EmpiricalBayesMixture, names: Sequence[str]) -> None:
        self.mixture, self.names = mixture, names

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Distances to the nearest component and negative log-likelihood."""
        from dinodp.families.scores import score_maps

        return score_maps(self.mixture.scores(tokens.flatten(0, 2), self.names), tokens, self.names)


def _read(source: Source) -> Iterator[torch.Tensor]:
    """One pass over the embeddings, in the order of the images; the next are read while these are used."""
    from dinodp.families.features import chunks
    from dinodp.jobs.prefetch import prefetched

    return prefetched(chunks(source))
