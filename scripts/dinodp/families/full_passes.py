"""What families that are fitted by full passes of EM share: options, fit, and shrinkage by held-out images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dinodp.families.base import FitTask, Fitted, ModelOptions, Source
from dinodp.jobs.logs import logger
from dinodp.options.base import option
from dinodp.options.choices import Background

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp.models import EmpiricalBayesMixture, VonMisesFisherMixture
    from dinodp.store import Maps


class FullPassOptions(ModelOptions):
    """Mixtures fitted by full passes of EM from k-means++.

    Their `background` is `leave_out` unless the entry says otherwise.
    """

    HAS_COMPONENTS: ClassVar[bool] = True
    HOLDS_OUT: ClassVar[bool] = True

    background: Background = option(
        "leave_out", "As of every model; what is black in all images would take components that anatomy needs."
    )
    components: int = option(500, "Truncation level K; at most one per ten embeddings.", ge=2)
    epochs: int = option(12, "Passes of variational EM over all training embeddings.", ge=1)
    lloyd_passes: int = option(4, "Passes of spherical k-means before them.", ge=0)
    start_embeddings: int = option(20_000, "Embeddings that k-means++ sees, at least 6 K.", ge=1)

    def build(self, device: str) -> EmpiricalBayesMixture | VonMisesFisherMixture:
        """The mixture that the options describe, not yet fitted."""
        raise NotImplementedError

    def sizes(self) -> dict[str, Any]:
        """What every mixture of this kind is built with."""
        return {
            "n_components": self.components,
            "passes": self.epochs,
            "lloyd_passes": self.lloyd_passes,
            "start_embeddings": self.start_embeddings,
        }

    def fit(self, task: FitTask) -> Fitted:
        """Fit to the training images; images that were not fitted choose the strength of the prior.

        They are the validation images or, without any, a share of the training subjects: these choose for a mixture of
        the others, and all are fitted then.
        """
        mixture = self.build(task.device)
        mixture.fit(lambda: _read(task.train), task.generator)
        logger.info("%d components, bound %.2f, nu %.1f", len(mixture.means_), mixture.bounds_[-1], mixture.nu_)
        self._shrink(mixture, task)
        logger.info("held-out images: nu %g, spread times %.3f", mixture.nu_, mixture.inflation_)
        history = {
            "epoch": np.arange(1, self.epochs + 1),
            "bound": np.array(mixture.bounds_),
            "active_components": np.array(mixture.active_counts_),
        }
        state = {name: np.asarray(value) for name, value in mixture.state_dict().items()}
        return Fitted(state, history, mixture.active_counts_[-1])

    def _shrink(self, mixture: Any, task: FitTask) -> None:
        if task.valid.n_images:
            mixture.calibrate(lambda: _read(task.valid))
            return
        from dinodp.families.holding_out import held_out

        others, held = held_out(task.train, task.generator)
        if held.n_images and others.n_images:  # a single image is all that there is: the prior's own strength stays
            part = self.build(task.device).fit(lambda: _read(others), task.generator)
            mixture.shrink_as(part.calibrate(lambda: _read(held)))

    def load(self, state: Mapping[str, Any], train: Source, *, seed: int, device: str) -> FullPassModel:
        """The mixture of a model file."""
        return FullPassModel(self.build(device).load_state(state), self.scores)


class FullPassModel:
    """A fitted mixture and its scores."""

    def __init__(self, mixture: EmpiricalBayesMixture | VonMisesFisherMixture, names: Sequence[str]) -> None:
        self.mixture, self.names = mixture, names

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Patch scores of embeddings [B, row, col, D]."""
        from dinodp.families.scores import score_maps

        return score_maps(self.mixture.scores(tokens.flatten(0, 2), self.names), tokens, self.names)


def _read(source: Source) -> Iterator[torch.Tensor]:
    """One pass over the embeddings, in the order of the images; the next are read while these are used."""
    from dinodp.families.features import chunks
    from dinodp.jobs.prefetch import prefetched

    return prefetched(chunks(source))
