"""Mini-batch k-means: cluster centres alone, as an ablation of the mixture's weights and covariances."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from dinodp.errors import require_known
from dinodp.families.base import FitTask, Fitted, Source
from dinodp.families.features import chunks
from dinodp.families.fitting import spread_embeddings
from dinodp.jobs.logs import logger, progress
from dinodp.models import MemoryBank
from dinodp.store import Maps

SCORES = ("cosine", "euclidean")
QUERIES_PER_CHUNK = 4096


class KMeansFamily:
    """K cluster centres [K, D]; scored by the distance to the nearest one."""

    def __init__(self, means: torch.Tensor, names: Sequence[str], device: str) -> None:
        for name in names:
            require_known("score of k-means", name, SCORES)
        self.names, self.means = names, means.to(device)
        self._bank = MemoryBank(device=device).fit(means)

    @staticmethod
    def fit(options: Mapping[str, Any], task: FitTask) -> Fitted:
        """Passes over mini-batches of images in random order; the epoch with the smallest validation error is kept.

        The error is the mean squared distance to the nearest centre, before each step for the training batches.
        """
        from sklearn.cluster import MiniBatchKMeans  # a second of imports that other jobs need not pay

        train, generator, k = task.train, task.generator, int(options.get("components", 500))
        start = spread_embeddings(train, k, generator)
        start = start[torch.randperm(len(start), generator=generator)[:k]]
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        model = MiniBatchKMeans(k, init=start.numpy(), n_init=1, random_state=seed, reassignment_ratio=0.0)
        history: dict[str, list[float]] = {"epoch": [], "validation_error": []}
        best = start
        for epoch in progress(range(1, int(options.get("epochs", 40)) + 1), "fit", unit="epoch"):
            order = torch.randperm(train.n_images, generator=generator)
            for images in order.split(int(options.get("images_per_batch", 12))):
                model.partial_fit(train.read(images.tolist()).flatten(0, 2).numpy())
            means = torch.from_numpy(np.asarray(model.cluster_centers_, dtype=np.float32))
            history["epoch"].append(epoch)
            history["validation_error"].append(_error(means, task.valid))
            logger.info("epoch %d: validation error %.5f", epoch, history["validation_error"][-1])
            if history["validation_error"][-1] == min(history["validation_error"]):
                best = means
        return Fitted({"means": best.numpy()}, history, k)

    @classmethod
    def load(
        cls, config: Mapping[str, Any], state: Mapping[str, Any], train: Source, device: str
    ) -> "KMeansFamily":
        """The centres of a model file."""
        return cls(torch.as_tensor(np.array(state["means"])), config["scores"], device)

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Scores float32 [B, row, col] of embeddings [B, row, col, D]."""
        x = tokens.flatten(0, 2).to(self.means)
        measure: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "cosine": self._bank.distances,
            "euclidean": partial(nearest_distance, means=self.means),
        }
        return {name: measure[name](x).reshape(tokens.shape[:3]).float().cpu().numpy() for name in self.names}


def nearest_distance(x: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """Euclidean distance [n] of embeddings [n, D] to the nearest of the means [K, D]."""
    return torch.cat([torch.cdist(chunk, means).amin(1) for chunk in x.split(QUERIES_PER_CHUNK)])


def _error(means: torch.Tensor, source: Source) -> float:
    distances = [nearest_distance(x, means) for x in chunks(source)]
    return float(torch.cat(distances).double().square().mean())
