"""scikit-learn's variational Dirichlet process mixture, as a reference where its arrays fit in memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from dinodp.errors import InputError
from dinodp.logs import logger
from dinodp.models.dirichlet_process import DirichletProcessMixture
from dinodp.models.fitting import EmbeddingSource, spread_embeddings
from dinodp.scores import patch_scores

MAX_EMBEDDINGS = 20_000


class BayesianFamily:
    """Fitted at once on embeddings drawn over the training split; scored as the project's own mixture is."""

    def __init__(self, mixture: DirichletProcessMixture, config: Mapping[str, Any]) -> None:
        self.mixture, self.names = mixture, config["scores"]

    @staticmethod
    def fit(
        options: Mapping[str, Any],
        train: EmbeddingSource,
        valid: EmbeddingSource,
        generator: torch.Generator,
        device: str,
        checkpoint: Path,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, float | None]]:
        """At most ``max_embeddings`` embeddings, ``epochs`` iterations. Raises InputError for fewer than K."""
        from sklearn.mixture import BayesianGaussianMixture  # a second of imports that other jobs need not pay

        k, limit = int(options.get("components", 500)), int(options.get("max_embeddings", MAX_EMBEDDINGS))
        x = spread_embeddings(train, limit, generator)[:limit].double().numpy()
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
            random_state=int(torch.randint(2**31 - 1, (1,), generator=generator)),
        ).fit(x)
        logger.info("Bayesian mixture of %d embeddings: %d iterations.", len(x), model.n_iter_)
        # its weights fall in no order, and a stick breaks off what is left: the heaviest first
        order = np.argsort(-model.weights_, kind="stable")
        mixture = DirichletProcessMixture(k, model.covariance_type, model.reg_covar, device=device)
        mixture.load_state(
            {
                "stick_fractions": _sticks(model.weights_[order]),
                "means": model.means_[order],
                "covariances": model.covariances_[order],
                "concentration": model.weight_concentration_prior_,
            }
        )
        state = {name: np.asarray(value) for name, value in mixture.state_dict().items()}
        size = sum(value.nbytes for value in state.values()) / 2**20
        return state, {}, {"model_mib": size, "active_components": int(mixture.active_.sum())}

    @classmethod
    def load(
        cls, config: Mapping[str, Any], state: Mapping[str, Any], train: EmbeddingSource, device: str
    ) -> "BayesianFamily":
        """The mixture of a model file."""
        covariance, reg_covar = config.get("covariance", "diag"), config.get("reg_covar", 1e-6)
        mixture = DirichletProcessMixture(len(state["means"]), covariance, reg_covar, device=device)
        return cls(mixture.load_state(state), config)

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> dict[str, npt.NDArray[np.float32]]:
        """Scores float32 [B, row, col] of embeddings [B, row, col, D]."""
        return patch_scores(self.mixture, tokens, self.names)


def _sticks(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Stick fractions [K] that give the weights [K]; the last is 1."""
    remaining = np.cumsum(weights[::-1])[::-1]
    sticks = np.divide(weights, remaining, out=np.zeros_like(weights), where=remaining > 0)
    sticks[-1] = 1.0
    return sticks
