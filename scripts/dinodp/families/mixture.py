"""Mixtures: the Dirichlet process, the same without its prior, and scikit-learn's variational one as a reference."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from dinodp.errors import InputError
from dinodp.families.base import FitTask, Fitted, Source
from dinodp.families.fitting import fit_mixture, spread_embeddings
from dinodp.families.scores import patch_scores
from dinodp.jobs.logs import logger
from dinodp.jobs.processes import current_group
from dinodp.models import DirichletProcessMixture, GaussianMixture
from dinodp.models.online_mixture import OnlineMixture
from dinodp.store import Maps

MAX_EMBEDDINGS = 20_000  # of scikit-learn's mixture, whose arrays must fit in memory


class DirichletProcessFamily:
    """Dirichlet process mixture; its file holds all parameters and sufficient statistics."""

    def __init__(self, mixture: OnlineMixture, names: Sequence[str]) -> None:
        self.mixture, self.names = mixture, names

    @classmethod
    def build(cls, options: Mapping[str, Any], device: str) -> OnlineMixture:
        """The mixture that a catalog entry describes."""
        return DirichletProcessMixture(
            concentration=options.get("concentration", 2.0),
            fix_concentration=options.get("fix_concentration", False),
            **_common(options, device),
        )

    @classmethod
    def fit(cls, options: Mapping[str, Any], task: FitTask) -> Fitted:
        """Online EM over mini-batches of images, keeping the epoch with the best validation likelihood."""
        mixture = cls.build(options, task.device)
        mixture.process_group = current_group()
        history = fit_mixture(
            mixture,
            task.train,
            task.valid,
            epochs=options.get("epochs", 40),
            images_per_batch=options.get("images_per_batch", 12),
            generator=task.generator,
            init=options.get("init", "spread"),
            checkpoint=task.checkpoint,
        )
        return _fitted(mixture, history.arrays())

    @classmethod
    def load(cls, config: Mapping[str, Any], state: Mapping[str, Any], train: Source, device: str) -> Self:
        """The mixture of a model file."""
        mixture = cls.build(config, device)
        mixture.load_state(state)
        return cls(mixture, config["scores"])

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Distances to the nearest active component and negative log-likelihood."""
        return patch_scores(self.mixture, tokens, self.names)


class GaussianMixtureFamily(DirichletProcessFamily):
    """Gaussian mixture of K components: the same online EM without the prior."""

    @classmethod
    def build(cls, options: Mapping[str, Any], device: str) -> OnlineMixture:
        """The mixture that a catalog entry describes."""
        return GaussianMixture(**_common(options, device))


class BayesianMixtureFamily(DirichletProcessFamily):
    """scikit-learn's mixture, fitted at once on embeddings drawn over the training split; scored as the others."""

    @classmethod
    def fit(cls, options: Mapping[str, Any], task: FitTask) -> Fitted:
        """At most ``max_embeddings`` embeddings, ``epochs`` iterations. Raises InputError for fewer than K."""
        from sklearn.mixture import BayesianGaussianMixture  # a second of imports that other jobs need not pay

        k, limit = int(options.get("components", 500)), int(options.get("max_embeddings", MAX_EMBEDDINGS))
        x = spread_embeddings(task.train, limit, task.generator)[:limit].double().numpy()
        if len(x) < k:
            raise InputError(
                f"{len(x)} embeddings cannot start {k} components: raise max_embeddings or lower components."
            )
        model = BayesianGaussianMixture(
            n_components=k,
            covariance_type=options.get("covariance", "diag"),
            reg_covar=options.get("reg_covar", 1e-6),
            max_iter=int(options.get("epochs", 40)),
            weight_concentration_prior_type="dirichlet_process",
            random_state=int(torch.randint(2**31 - 1, (1,), generator=task.generator)),
        ).fit(x)
        logger.info("Bayesian mixture of %d embeddings: %d iterations.", len(x), model.n_iter_)
        # its weights fall in no order, and a stick breaks off what is left: the heaviest first
        order = np.argsort(-model.weights_, kind="stable")
        mixture = cls.build(options, task.device)
        mixture.load_state(
            {
                "stick_fractions": stick_fractions(model.weights_[order]),
                "means": model.means_[order],
                "covariances": model.covariances_[order],
                "concentration": model.weight_concentration_prior_,
            }
        )
        return _fitted(mixture, {})


def _common(options: Mapping[str, Any], device: str) -> dict[str, Any]:
    return {
        "n_components": options.get("components", 500),
        "covariance_type": options.get("covariance", "diag"),
        "reg_covar": options.get("reg_covar", 1e-6),
        "step_schedule": options.get("step_schedule", "ema"),
        "step_rate": options.get("step_rate", 0.2),
        "device": device,
    }


def _fitted(mixture: OnlineMixture, history: Mapping[str, Any]) -> Fitted:
    state = {name: np.asarray(value) for name, value in mixture.state_dict().items()}
    return Fitted(state, history, int(mixture.active_.sum()))


def stick_fractions(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Stick fractions [K] that give the weights [K]; the last is 1."""
    remaining = np.cumsum(weights[::-1])[::-1]
    sticks = np.divide(weights, remaining, out=np.zeros_like(weights), where=remaining > 0)
    sticks[-1] = 1.0
    return sticks
