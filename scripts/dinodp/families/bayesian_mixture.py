"""scikit-learn's variational mixture as a reference, fitted at once on embeddings drawn over the training split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from dinodp.errors import InputError
from dinodp.families.base import FitTask, Fitted
from dinodp.families.mixture import MixtureOptions, fitted
from dinodp.jobs.logs import logger
from dinodp.options.base import option

if TYPE_CHECKING:
    from dinodp.models import DirichletProcessMixture


class BayesianMixtureOptions(MixtureOptions):
    """scikit-learn's mixture, fitted at once on embeddings drawn over the training split; scored as the others."""

    family: Literal["bayesian_mixture"] = "bayesian_mixture"
    max_embeddings: int = option(20_000, "Embeddings it is fitted on; all must fit in memory.", ge=2)

    def build(self, device: str) -> DirichletProcessMixture:
        """A mixture that takes the fitted parameters."""
        from dinodp.models import DirichletProcessMixture

        return DirichletProcessMixture(
            n_components=self.components, covariance_type=self.covariance, reg_covar=self.reg_covar, device=device
        )

    def fit(self, task: FitTask) -> Fitted:
        """At most ``max_embeddings`` embeddings, ``epochs`` iterations.

        Raises InputError for fewer than K, and for embeddings that are not finite.
        """
        import torch
        from sklearn.mixture import BayesianGaussianMixture  # a second of imports that other jobs need not pay

        from dinodp.families.fitting import spread_embeddings
        from dinodp.models.components import finite_matrix

        drawn = spread_embeddings(task.train, self.max_embeddings, task.generator)[: self.max_embeddings]
        x = finite_matrix(drawn).double().numpy()
        if len(x) < self.components:
            raise InputError(
                f"{len(x)} embeddings cannot start {self.components} components: raise max_embeddings or lower "
                "components."
            )
        model = BayesianGaussianMixture(
            n_components=self.components,
            covariance_type=self.covariance,
            reg_covar=self.reg_covar,
            max_iter=self.epochs,
            weight_concentration_prior_type="dirichlet_process",
            random_state=int(torch.randint(2**31 - 1, (1,), generator=task.generator)),
        ).fit(x)
        logger.info("Bayesian mixture of %d embeddings: %d iterations.", len(x), model.n_iter_)
        # its weights fall in no order, and a stick breaks off what is left: the heaviest first
        order = np.argsort(-model.weights_, kind="stable")
        mixture = self.build(task.device)
        mixture.load_state(
            {
                "stick_fractions": stick_fractions(model.weights_[order]),
                "means": model.means_[order],
                "covariances": model.covariances_[order],
                "concentration": model.weight_concentration_prior_,
            }
        )
        return fitted(mixture, {})


def stick_fractions(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Stick fractions [K] that give the weights [K]; the last is 1."""
    remaining = np.cumsum(weights[::-1])[::-1]
    sticks = np.divide(weights, remaining, out=np.zeros_like(weights), where=remaining > 0)
    sticks[-1] = 1.0
    return sticks
