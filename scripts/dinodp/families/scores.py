"""Patch scores as they are stored. Higher is more anomalous."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch


def score_maps(
    found: Mapping[str, torch.Tensor], tokens: torch.Tensor, names: Sequence[str]
) -> dict[str, npt.NDArray[np.float32]]:
    """Scores float32 [B, row, col] by name, of scores ``found`` [n] of embeddings [B, row, col, D], n = B row col."""
    return {name: found[name].reshape(tokens.shape[:3]).float().cpu().numpy() for name in names}
