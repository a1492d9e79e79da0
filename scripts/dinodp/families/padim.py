"""A Gaussian per place (PaDiM; Defard et al., ICPR 2021 workshops), for images that are aligned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from dinodp.errors import InputError
from dinodp.families.base import FitTask, Fitted, ModelOptions, PlacedModel, Source
from dinodp.families.soundness import Stored
from dinodp.options.base import option

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp.families.soundness import Layout
    from dinodp.store import Maps


class PadimOptions(ModelOptions):
    """A Gaussian per place of the patch grid; scored by Mahalanobis distance. Images must be aligned."""

    SCORES: ClassVar[tuple[str, ...]] = ("mahalanobis",)
    IS_PLACED: ClassVar[bool] = True

    family: Literal["padim"] = "padim"
    random_dims: int | None = option(None, "Draw so many numbers of an embedding (PaDiM: 100); absent: all.", ge=1)
    prior_images: float = option(
        100.0, "Images that the covariance of all places together counts as beside that of each place.", gt=0
    )
    reg_covar: float = option(1e-6, "Added to every variance (write 1.0e-6, not 1e-6).", gt=0)

    @property
    def is_random(self) -> bool:
        """Only which numbers are drawn needs a seed."""
        return self.random_dims is not None

    @property
    def is_variant(self) -> bool:
        """PaDiM's published numbers are of a convolutional network's features."""
        return True

    def fit(self, task: FitTask) -> Fitted:
        """Means [row, col, d] and inverse Cholesky factors [row, col, d, d], float32, of the drawn numbers [d]."""
        import torch

        dims = self._drawn(task.train.dim, task.generator)
        count, mean, covariance = place_moments(task.train, dims)
        shrunk = self._shrunk(count, covariance)
        factors, failed = torch.linalg.cholesky_ex(shrunk)
        if bool(failed.any()):
            raise InputError("The covariance of a place is not positive definite: raise reg_covar.")
        whitening = torch.linalg.solve_triangular(factors, torch.eye(len(dims), dtype=factors.dtype), upper=False)
        state = {"dims": dims.numpy(), "mean": mean.float().numpy(), "whitening": whitening.float().numpy()}
        return Fitted(state, {}, int(count.numel()))

    def _drawn(self, dim: int, generator: torch.Generator) -> torch.Tensor:
        import torch

        wanted = dim if self.random_dims is None else self.random_dims
        if wanted > dim:
            raise InputError(f"random_dims is {wanted}; it must be at most {dim}, the length of an embedding.")
        return torch.arange(dim) if wanted == dim else torch.randperm(dim, generator=generator)[:wanted].sort().values

    def _shrunk(self, count: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
        """Covariances [row, col, d, d] drawn towards that of all places, most where there are few images."""
        import torch

        weights = count[..., None, None]
        pooled = (weights * covariance).sum((0, 1)) / count.sum()
        shrunk = (weights * covariance + self.prior_images * pooled) / (weights + self.prior_images)
        return shrunk + self.reg_covar * torch.eye(covariance.shape[-1], dtype=covariance.dtype)

    def layout(self, dim: int) -> Layout:
        """The drawn numbers, and of each place the mean and what whitens."""
        kept = self.random_dims or dim
        return {
            "dims": Stored((kept,), 0, dim - 1, kind="i"),
            "mean": Stored((None, None, kept)),
            "whitening": Stored((None, None, kept, kept)),
        }

    def load(self, state: Mapping[str, Any], train: Source, *, seed: int, device: str) -> Padim:
        """The Gaussians of a model file."""
        if state["mean"].shape[:2] != state["whitening"].shape[:2]:
            raise InputError("The state's mean and whitening are of different grids.")
        return Padim(state, self.scores, device)


class Padim(PlacedModel):
    """Means [row, col, d] and inverse Cholesky factors [row, col, d, d] of some numbers of an embedding."""

    def __init__(self, state: Mapping[str, Any], names: Sequence[str], device: str) -> None:
        import torch

        self.names = names
        self._dims, self._mean, self._whitening = (
            torch.as_tensor(np.array(state[key])).to(device) for key in ("dims", "mean", "whitening")
        )

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame, shown: torch.Tensor | None = None) -> Maps:
        """Distances float32 [B, row, col] of embeddings [B, row, col, D]. Raises InputError for another grid."""
        import torch

        from dinodp.families.scores import score_maps
        from dinodp.models.components import finite_matrix

        grid, known = tuple(tokens.shape[1:3]), tuple(self._mean.shape[:2])
        if grid != known:
            raise InputError(
                f"An image has {grid[0]} x {grid[1]} patches; the model knows {known[0]} x {known[1]} places."
            )
        finite_matrix(tokens.flatten(0, 2))
        x = tokens.to(self._mean)[..., self._dims] - self._mean
        whitened = torch.einsum("rcde,brce->brcd", self._whitening, x)
        return score_maps({"mahalanobis": whitened.norm(dim=-1).flatten()}, tokens, self.names)


def place_moments(train: Source, dims: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Number [row, col], mean [row, col, d] and covariance [row, col, d, d] (divided by n) of each place, float64.

    A place without an embedding has the mean of all, and no covariance. Raises InputError for embeddings that are not
    finite, and for images of several sizes.
    """
    import torch

    from dinodp.families.foreground import placed_chunks
    from dinodp.models.components import finite_matrix

    count, total, square = torch.zeros(()), torch.zeros(()), torch.zeros(())
    for tokens, shown in placed_chunks(train, range(train.n_images)):
        if count.ndim and count.shape != shown.shape[1:]:
            raise InputError("This family compares places: all healthy images must have one size.")
        finite_matrix(tokens[shown])
        x = torch.where(shown[..., None], tokens, 0).double()[..., dims]
        count, total = count + shown.double().sum(0), total + x.sum(0)
        square = square + torch.einsum("brcd,brce->rcde", x, x)
    n = count.clamp(min=1)
    mean = torch.where(count[..., None] > 0, total / n[..., None], total.sum((0, 1)) / count.sum())
    about_zero = torch.einsum("rcd,rce->rcde", mean, mean)
    covariance = torch.where(count[..., None, None] > 0, square / n[..., None, None] - about_zero, 0.0)
    return count, mean, covariance
