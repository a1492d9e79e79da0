"""A single Gaussian over all training embeddings: the simplest density, as a reference for the mixtures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from dinodp.errors import InputError, require_known
from dinodp.families.base import FitTask, Fitted, Source
from dinodp.families.features import chunks
from dinodp.store import Maps

SCORES = ("mahalanobis", "log_likelihood")


class GaussianFamily:
    """Mean and covariance (``full`` or ``diag``); scored by Mahalanobis distance or negative log-likelihood."""

    def __init__(self, state: Mapping[str, Any], names: Sequence[str], device: str) -> None:
        for name in names:
            require_known("score of a single Gaussian", name, SCORES)
        self.names = names
        self._mean, self._factor = (torch.as_tensor(np.array(state[key])).to(device) for key in ("mean", "factor"))

    @staticmethod
    def fit(options: Mapping[str, Any], task: FitTask) -> Fitted:
        """Mean [D] and Cholesky factor [D, D] of the covariance, in float64. Raises InputError if it is singular."""
        mean, covariance = moments(task.train)
        covariance += float(options.get("reg_covar", 1e-6)) * torch.eye(len(mean))
        if options.get("covariance", "full") == "diag":
            covariance = torch.diag(covariance.diagonal())
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if int(failed):
            raise InputError("The covariance of the training embeddings is not positive definite: raise reg_covar.")
        return Fitted({"mean": mean.numpy(), "factor": factor.numpy()}, {}, 1)

    @classmethod
    def load(
        cls, config: Mapping[str, Any], state: Mapping[str, Any], train: Source, device: str
    ) -> "GaussianFamily":
        """The Gaussian of a model file."""
        return cls(state, config["scores"], device)

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Scores float32 [B, row, col] of embeddings [B, row, col, D]."""
        x = tokens.flatten(0, 2).to(self._mean) - self._mean
        squared = torch.linalg.solve_triangular(self._factor, x.T, upper=False).square().sum(0)
        log_determinant = 2 * self._factor.diagonal().log().sum()
        found = {
            "mahalanobis": squared.sqrt(),
            "log_likelihood": 0.5 * (squared + log_determinant + x.shape[1] * math.log(2 * math.pi)),
        }
        return {name: found[name].reshape(tokens.shape[:3]).float().cpu().numpy() for name in self.names}


def moments(train: Source) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [D] and covariance [D, D] (divided by n), float64, a few images in memory at a time."""
    total, square, count = torch.zeros(()), torch.zeros(()), 0
    for x in map(torch.Tensor.double, chunks(train)):
        total, square, count = total + x.sum(0), square + x.T @ x, count + len(x)
    mean = total / count
    return mean, square / count - torch.outer(mean, mean)
