"""What principal axes leave of an embedding (SubspaceAD; Lendering et al., CVPR 2026)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from dinodp.errors import InputError
from dinodp.families.base import FitTask, Fitted, ModelOptions, Source
from dinodp.families.soundness import Stored
from dinodp.jobs.logs import logger
from dinodp.options.base import option

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp.families.soundness import Layout
    from dinodp.store import Maps

ROUNDING = 1e-5  # of a unit vector in float32


class PcaResidualOptions(ModelOptions):
    """Principal axes of the training embeddings; scored by the squared length of what they leave."""

    SCORES: ClassVar[tuple[str, ...]] = ("residual",)

    family: Literal["pca_residual"] = "pca_residual"
    variance: float = option(0.99, "Share of the variance that the axes keep.", gt=0, lt=1)
    axes: int | None = option(None, "Number of axes instead; below the length of an embedding.", ge=1)

    @property
    def is_random(self) -> bool:
        """Moments need no seed."""
        return False

    def fit(self, task: FitTask) -> Fitted:
        """Mean [D] and axes [D, k], from moments in float64. Raises InputError for as many axes as dimensions."""
        import torch

        from dinodp.families.gaussian import moments

        mean, covariance = moments(task.train)
        variances, axes = (found.flip(-1) for found in torch.linalg.eigh(covariance))
        kept = self._kept(variances)
        logger.info("%d of %d axes are kept.", kept, len(mean))
        return Fitted({"mean": mean.numpy(), "axes": axes[:, :kept].contiguous().numpy()}, {}, kept)

    def _kept(self, variances: torch.Tensor) -> int:
        """The fewest axes with the share of the variance, but not all: they would leave nothing."""
        most = max(1, len(variances) - 1)
        if self.axes is None:
            share = variances.clamp(min=0).cumsum(0)
            return min(most, 1 + int((share < self.variance * share[-1]).sum()))
        if self.axes > most:
            raise InputError(f"axes is {self.axes}; at most {most} of {len(variances)} can be kept.")
        return self.axes

    def layout(self, dim: int) -> Layout:
        """Mean and axes."""
        return {"mean": Stored((dim,)), "axes": Stored((dim, self.axes), -1 - ROUNDING, 1 + ROUNDING)}

    def load(self, state: Mapping[str, Any], train: Source, *, seed: int, device: str) -> PcaResidual:
        """The axes of a model file."""
        return PcaResidual(state, self.scores, device)


class PcaResidual:
    """Mean [D] and principal axes [D, k]."""

    def __init__(self, state: Mapping[str, Any], names: Sequence[str], device: str) -> None:
        import torch

        self.names = names
        self._mean, self._axes = (torch.as_tensor(np.array(state[key])).to(device) for key in ("mean", "axes"))

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Squared residuals float32 [B, row, col] of embeddings [B, row, col, D], computed in the state's float64."""
        from dinodp.families.scores import score_maps
        from dinodp.models.components import finite_matrix

        x = finite_matrix(tokens.flatten(0, 2), len(self._mean)).to(self._mean) - self._mean
        left = x - (x @ self._axes) @ self._axes.T
        return score_maps({"residual": left.square().sum(1)}, tokens, self.names)
