"""PatchCore (Roth et al., CVPR 2022): a coreset of neighbourhood means, and a weighted image score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import field_validator

from dinodp.families.base import FitTask, Fitted, ModelOptions, PlacedModel, Source
from dinodp.families.soundness import Stored
from dinodp.jobs.logs import logger
from dinodp.options.base import option

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp.families.soundness import Layout
    from dinodp.store import Maps

OWN_SCANS_EMBEDDINGS = 20_000


class PatchcoreOptions(ModelOptions):
    """Greedy coreset of means over neighbouring patches; scored by the distance to the nearest on the unit sphere."""

    SCORES: ClassVar[tuple[str, ...]] = ("euclidean",)
    IS_PLACED: ClassVar[bool] = True

    family: Literal["patchcore"] = "patchcore"
    neighbourhood: int = option(3, "Side of the square of patches whose mean stands for the middle one; odd.", ge=1)
    coreset_fraction: float = option(0.1, "Share of the training embeddings that is kept.", gt=0, le=1)
    max_embeddings: int | None = option(
        None, "Before the coreset, draw about as many, equally many of each image.", ge=1
    )
    reweighted_by: int = option(
        9, "Remembered embeddings about the nearest one that weigh the image score; 0: the run's image score.", ge=0
    )

    @field_validator("neighbourhood")
    @classmethod
    def _is_odd(cls, side: int) -> int:
        if side % 2 == 0:
            raise ValueError(f"{side} is even, so that no patch is in the middle; choose an odd number")
        return side

    @property
    def is_variant(self) -> bool:
        """PatchCore's published numbers are of a convolutional network's features."""
        return True

    def for_own_scans(self) -> dict[str, Any]:
        """A coreset takes time with the square of the embeddings."""
        return {} if self.max_embeddings else {"max_embeddings": OWN_SCANS_EMBEDDINGS}

    def fitting_mib(self, train_mib: float) -> float:
        """All neighbourhood means as float32, and once more to join them."""
        return super().fitting_mib(train_mib) + (0.0 if self.max_embeddings else 4 * train_mib)

    def fit(self, task: FitTask) -> Fitted:
        """The coreset [n, D], unit vectors. Raises InputError for an embedding of length zero."""
        import torch

        from dinodp.models.k_center import coreset
        from dinodp.models.memory_bank import unit_vectors

        means = unit_vectors(torch.cat(list(self._means(task))))
        count = max(1, int(len(means) * self.coreset_fraction))
        kept = means[torch.from_numpy(coreset(means, count, task.generator))]
        logger.info("PatchCore: %d of %d neighbourhood means.", len(kept), len(means))
        return Fitted({"bank": kept.numpy()}, {}, None)

    def _means(self, task: FitTask) -> Iterator[torch.Tensor]:
        """Neighbourhood means [n, D] of the training images: all of the foreground, or a draw."""
        import torch

        from dinodp.families.foreground import placed_chunks
        from dinodp.models.components import finite_matrix

        n_images = task.train.n_images
        most = None if self.max_embeddings is None else -(-self.max_embeddings // n_images)
        for tokens, shown in placed_chunks(task.train, range(n_images)):
            finite_matrix(tokens[shown])
            for image, inside in zip(neighbourhood_means(tokens, shown, self.neighbourhood), shown, strict=True):
                x = image[inside]
                yield x if most is None else x[torch.randperm(len(x), generator=task.generator)[:most]]

    def layout(self, dim: int) -> Layout:
        """The coreset."""
        return {"bank": Stored((None, dim), -1.001, 1.001)}

    def load(self, state: Mapping[str, Any], train: Source, *, seed: int, device: str) -> Patchcore:
        """The coreset of a model file."""
        return Patchcore(self, state, device)


class Patchcore(PlacedModel):
    """A coreset [n, D] of unit vectors."""

    def __init__(self, options: PatchcoreOptions, state: Mapping[str, Any], device: str) -> None:
        import torch

        from dinodp.models import MemoryBank

        self.names, self.options = options.scores, options
        self._bank = MemoryBank(device=device).fit(torch.as_tensor(np.array(state["bank"])))

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame, shown: torch.Tensor | None = None) -> Maps:
        """Distance [B, row, col] of neighbourhood means to the nearest remembered one."""
        from dinodp.families.scores import score_maps

        return score_maps({"euclidean": chord(self._bank.distances(self._means(tokens, shown)))}, tokens, self.names)

    def _means(self, tokens: torch.Tensor, shown: torch.Tensor | None) -> torch.Tensor:
        """Neighbourhood means [n, D] of embeddings [B, row, col, D]."""
        import torch

        from dinodp.models.components import finite_matrix

        finite_matrix(tokens.flatten(0, 2), self._bank.dim_)
        seen = torch.ones(tokens.shape[:3], dtype=torch.bool, device=tokens.device) if shown is None else shown
        return neighbourhood_means(tokens, seen, self.options.neighbourhood).flatten(0, 2)

    def image_scores(self, tokens: torch.Tensor, maps: Maps, shown: torch.Tensor | None = None) -> Maps:
        """The highest patch score s of each image, times 1 - exp(s) / sum exp(distances to the neighbours).

        The neighbours are the remembered embeddings nearest to the one that is nearest to the patch, and itself.
        """
        import torch

        if not self.options.reweighted_by:
            return {}
        flat = torch.from_numpy(maps["euclidean"]).flatten(1)
        means = self._means(tokens, shown).unflatten(0, flat.shape)
        highest = means[torch.arange(len(flat)), flat.argmax(1)]
        _, nearest = self._bank.nearest(highest)
        remembered = self._bank.embeddings_
        count = min(self.options.reweighted_by, len(remembered))
        around = (remembered[nearest] @ remembered.T).topk(count, dim=1).indices  # [B, count]
        query = torch.nn.functional.normalize(highest.to(remembered), dim=1)
        distances = chord(1 - (remembered[around] @ query[:, :, None])[..., 0])
        own = chord(1 - (remembered[nearest] * query).sum(1))
        weights = 1 - own.exp() / distances.exp().sum(1)
        return {"euclidean": (flat.amax(1).to(weights) * weights).float().cpu().numpy()}


def chord(cosine_distance: torch.Tensor) -> torch.Tensor:
    """Euclidean distance of unit vectors with these cosine distances."""
    return (2 * cosine_distance.clamp(min=0)).sqrt()


def neighbourhood_means(tokens: torch.Tensor, shown: torch.Tensor, side: int) -> torch.Tensor:
    """Means [B, row, col, D] over ``side`` x ``side`` patches, of those that are ``shown`` and within the image.

    A place about which nothing is shown keeps its embedding.
    """
    import torch

    if side == 1:
        return tokens
    x = torch.where(shown[..., None], tokens, 0).permute(0, 3, 1, 2)
    total, count = (
        torch.nn.functional.avg_pool2d(part, side, 1, side // 2, divisor_override=1)
        for part in (x, shown[:, None].to(x))
    )
    means = (total / count.clamp(min=1)).permute(0, 2, 3, 1)
    return torch.where(count[:, 0, ..., None] > 0, means, tokens)
