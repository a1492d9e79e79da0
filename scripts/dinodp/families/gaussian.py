"""A single Gaussian over all training embeddings: the simplest density, as a reference for the mixtures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from dinodp.errors import InputError
from dinodp.families.base import FitTask, Fitted, ModelOptions, Source
from dinodp.families.soundness import Stored
from dinodp.options.base import option

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp.families.soundness import Layout
    from dinodp.store import Maps


class GaussianOptions(ModelOptions):
    """Mean and covariance of all training embeddings; scored by Mahalanobis distance or negative log-likelihood."""

    SCORES: ClassVar[tuple[str, ...]] = ("mahalanobis", "log_likelihood")

    family: Literal["gaussian"] = "gaussian"
    covariance: Literal["full", "diag"] = option("full", "Whole covariance, or its diagonal.")
    reg_covar: float = option(1e-6, "Added to every variance (write 1.0e-6, not 1e-6).", gt=0)

    @property
    def is_random(self) -> bool:
        """Moments need no seed."""
        return False

    def fit(self, task: FitTask) -> Fitted:
        """Mean [D] and Cholesky factor [D, D] of the covariance, in float64. Raises InputError if it is singular."""
        import torch

        mean, covariance = moments(task.train)
        covariance += self.reg_covar * torch.eye(len(mean))
        if self.covariance == "diag":
            covariance = torch.diag(covariance.diagonal())
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if int(failed):
            raise InputError("The covariance of the training embeddings is not positive definite: raise reg_covar.")
        return Fitted({"mean": mean.numpy(), "factor": factor.numpy()}, {}, 1)

    def layout(self, dim: int) -> Layout:
        """Mean and Cholesky factor."""
        return {"mean": Stored((dim,)), "factor": Stored((dim, dim))}

    def load(self, state: Mapping[str, Any], train: Source, *, seed: int, device: str) -> Gaussian:
        """The Gaussian of a model file."""
        return Gaussian(state, self.scores, device)


class Gaussian:
    """A Gaussian by its mean [D] and Cholesky factor [D, D]."""

    def __init__(self, state: Mapping[str, Any], names: Sequence[str], device: str) -> None:
        import torch

        self.names = names
        self._mean, self._factor = (torch.as_tensor(np.array(state[key])).to(device) for key in ("mean", "factor"))

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Scores float32 [B, row, col] of embeddings [B, row, col, D]. Raises InputError for other than finite ones."""
        import torch

        from dinodp.families.scores import score_maps
        from dinodp.models.components import finite_matrix

        x = finite_matrix(tokens.flatten(0, 2), len(self._mean)).to(self._mean) - self._mean
        squared = torch.linalg.solve_triangular(self._factor, x.T, upper=False).square().sum(0)
        log_determinant = 2 * self._factor.diagonal().log().sum()
        found = {
            "mahalanobis": squared.sqrt(),
            "log_likelihood": 0.5 * (squared + log_determinant + x.shape[1] * math.log(2 * math.pi)),
        }
        return score_maps(found, tokens, self.names)


def moments(train: Source) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [D] and covariance [D, D] (divided by n), float64, a few images in memory at a time.

    Raises InputError for embeddings that are not finite.
    """
    import torch

    from dinodp.families.features import chunks
    from dinodp.models.components import finite_matrix

    total, square, count = torch.zeros(()), torch.zeros(()), 0
    for x in (finite_matrix(chunk).double() for chunk in chunks(train)):
        total, square, count = total + x.sum(0), square + x.T @ x, count + len(x)
    mean = total / count
    return mean, square / count - torch.outer(mean, mean)
