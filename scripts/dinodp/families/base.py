"""What a family of models is given to fit, and what it gives back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch

from dinodp.families.fitting import EmbeddingSource
from dinodp.jobs.costs import BYTES_PER_MIB
from dinodp.store import Maps

IMAGES_PER_SHARD = 64  # a shard holds whole blocks of as many images; every number of images per read divides it


class Source(EmbeddingSource, Protocol):
    """Embeddings of the images of a split as a model sees them."""

    n_patches: int
    dim: int


class FittedModel(Protocol):
    """A model that scores patches."""

    names: Sequence[str]

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Patch scores {score: float32 [B, row, col]} of embeddings [B, row, col, D] of images with manifest ``rows``.

        Higher is more anomalous.
        """


@dataclass(frozen=True)
class FitTask:
    """Normal images to fit on and to choose by, the one random generator, where to compute, where to note progress."""

    train: Source
    valid: Source
    generator: torch.Generator
    device: str
    checkpoint: Path


class Fitted(NamedTuple):
    """``state``: arrays that the model file holds; ``history``: arrays over the epochs; number of active components.

    ``size_mib`` is the size of the model in memory: that of the state unless it says otherwise.
    """

    state: Mapping[str, Any]
    history: Mapping[str, Any]
    active_components: int | None
    size_mib: float | None = None

    def cost(self) -> dict[str, float | None]:
        """What the cost table says of the model."""
        stored = sum(np.asarray(value).nbytes for value in self.state.values()) / BYTES_PER_MIB
        size = stored if self.size_mib is None else self.size_mib
        return {"model_mib": float(size), "active_components": self.active_components}
