"""Patch scores by name, and the image score. Higher is more anomalous."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dinodp.errors import require_known
from dinodp.models import DirichletProcessMixture, MemoryBank

PatchScore = Callable[[Any, torch.Tensor], torch.Tensor]


def _distance(model: DirichletProcessMixture, x: torch.Tensor, kind: str) -> torch.Tensor:
    return model.distances(x, kind)  # type: ignore[arg-type]


def _negative_log_likelihood(model: DirichletProcessMixture, x: torch.Tensor) -> torch.Tensor:
    return -model.score_samples(x)


def _bank_distance(model: MemoryBank, x: torch.Tensor) -> torch.Tensor:
    return model.distances(x)


MIXTURE_SCORES: dict[str, PatchScore] = {
    **{kind: partial(_distance, kind=kind) for kind in ("cosine", "euclidean", "mahalanobis")},
    "log_likelihood": _negative_log_likelihood,
}
BANK_SCORES: dict[str, PatchScore] = {"cosine": _bank_distance}


def patch_scores(
    model: DirichletProcessMixture | MemoryBank, tokens: torch.Tensor, names: Sequence[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """Scores float32 [B, row, col] of embeddings [B, row, col, D], by name.

    Raises InputError for a score that the model does not have.
    """
    known = BANK_SCORES if isinstance(model, MemoryBank) else MIXTURE_SCORES
    for name in names:
        require_known(f"score of a {type(model).__name__}", name, known)
    x = tokens.flatten(0, 2)
    return {name: known[name](model, x).reshape(tokens.shape[:3]).float().cpu().numpy() for name in names}


def image_score(maps: npt.NDArray[np.float32], fraction: float = 0.01) -> npt.NDArray[np.float32]:
    """Mean [n] of the highest ``fraction`` (at least one) of the patch scores [n, row, col] of each image."""
    flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2])
    count = max(1, int(flat.shape[1] * fraction))
    highest = np.partition(flat, flat.shape[1] - count, axis=1)[:, -count:]
    means: npt.NDArray[np.float32] = highest.mean(axis=1, dtype=np.float64).astype(np.float32)
    return means
