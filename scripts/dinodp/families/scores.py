"""Patch scores by name. Higher is more anomalous."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from dinodp.errors import require_known
from dinodp.models import DirichletProcessMixture, MemoryBank
from dinodp.options.choices import BANK_SCORES, MIXTURE_SCORES


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
    found = {"cosine": model.distances(x)} if isinstance(model, MemoryBank) else model.scores(x, names)
    return {name: found[name].reshape(tokens.shape[:3]).float().cpu().numpy() for name in names}
