"""Mini-batch k-means: cluster centres alone, as an ablation of the mixture's weights and covariances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from dinodp.errors import InputError
from dinodp.families.base import FitTask, Fitted, Source
from dinodp.families.epochs import BatchOptions, EpochOptions
from dinodp.families.soundness import Stored
from dinodp.jobs.logs import logger, progress

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp.families.soundness import Layout
    from dinodp.store import Maps

QUERIES_PER_CHUNK = 4096


class KMeansOptions(BatchOptions, EpochOptions):
    """K cluster centres; scored by the distance to the nearest one."""

    SCORES: ClassVar[tuple[str, ...]] = ("cosine", "euclidean")

    family: Literal["k_means"] = "k_means"

    def fit(self, task: FitTask) -> Fitted:
        """Passes over mini-batches of images in random order; the epoch with the smallest validation error is kept.

        The error is the mean squared distance to the nearest centre, before each step for the training batches.
        Raises InputError for a batch of fewer embeddings than centres, and for embeddings that are not finite.
        """
        import torch
        from sklearn.cluster import MiniBatchKMeans  # a second of imports that other jobs need not pay

        from dinodp.families.fitting import spread_embeddings
        from dinodp.models.components import finite_matrix

        train, generator, k = task.train, task.generator, self.components
        self._require_enough(min(self.images_per_batch, train.n_images) * train.n_patches)
        start = spread_embeddings(train, k, generator)
        start = finite_matrix(start[torch.randperm(len(start), generator=generator)[:k]])
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        model = MiniBatchKMeans(k, init=start.numpy(), n_init=1, random_state=seed, reassignment_ratio=0.0)
        history: dict[str, list[float]] = {"epoch": [], "validation_error": []}
        best = start
        for epoch in progress(range(1, self.epochs + 1), "fit", unit="epoch"):
            order = torch.randperm(train.n_images, generator=generator)
            for images in order.split(self.images_per_batch):
                model.partial_fit(finite_matrix(train.read(images.tolist()).flatten(0, 2)).numpy())
            means = torch.from_numpy(np.asarray(model.cluster_centers_, dtype=np.float32))
            history["epoch"].append(epoch)
            history["validation_error"].append(_error(means, task.valid))
            logger.info("epoch %d: validation error %.5f", epoch, history["validation_error"][-1])
            if history["validation_error"][-1] == min(history["validation_error"]):
                best = means
        return Fitted({"means": best.numpy()}, history, k)

    def layout(self, dim: int) -> Layout:
        """The centres."""
        return {"means": Stored((self.components, dim))}

    def _require_enough(self, n_embeddings: int) -> None:
        if n_embeddings < self.components:
            raise InputError(
                f"A batch of {n_embeddings} embeddings cannot start {self.components} centres: raise images_per_batch, "
                "or lower components."
            )

    def load(self, state: Mapping[str, Any], train: Source, *, seed: int, device: str) -> KMeans:
        """The centres of a model file."""
        return KMeans(np.array(state["means"]), self.scores, device)


class KMeans:
    """K cluster centres [K, D]."""

    def __init__(self, means: Any, names: Sequence[str], device: str) -> None:
        import torch

        from dinodp.models import MemoryBank

        self.names, self.means = names, torch.as_tensor(means).to(device)
        self._bank = MemoryBank(device=device).fit(self.means)

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Scores float32 [B, row, col] of embeddings [B, row, col, D]."""
        from dinodp.families.scores import score_maps

        x = tokens.flatten(0, 2).to(self.means)
        measure: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "cosine": self._bank.distances,
            "euclidean": partial(nearest_distance, means=self.means),
        }
        return score_maps({name: measure[name](x) for name in self.names}, tokens, self.names)


def nearest_distance(x: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """Euclidean distance [n] of embeddings [n, D] to the nearest of the means [K, D]."""
    import torch

    return torch.cat([torch.cdist(chunk, means).amin(1) for chunk in x.split(QUERIES_PER_CHUNK)])


def _error(means: torch.Tensor, source: Source) -> float:
    import torch

    from dinodp.families.features import chunks

    distances = [nearest_distance(x, means) for x in chunks(source)]
    return float(torch.cat(distances).double().square().mean())
