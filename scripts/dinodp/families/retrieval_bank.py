"""A bank that searches the most similar training images only (as RAD, Zhang et al. 2026, and CPR, Li et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from dinodp.errors import InputError
from dinodp.families.base import FitTask, Fitted, ModelOptions, PlacedModel, Source
from dinodp.families.soundness import Stored
from dinodp.options.base import option
from dinodp.options.choices import BANK_SCORES

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp.families.soundness import Layout
    from dinodp.store import Maps

OWN_SCANS_IMAGES = 100
BYTES_PER_MIB = 2**20


class RetrievalBankOptions(ModelOptions):
    """The k most similar training images by mean embedding; then the nearest of their patches, near the same place."""

    SCORES: ClassVar[tuple[str, ...]] = BANK_SCORES
    SEARCHES_TRAIN: ClassVar[bool] = True
    IS_PLACED: ClassVar[bool] = True

    family: Literal["retrieval_bank"] = "retrieval_bank"
    images: int = option(10, "Training images that each image is compared with.", ge=1)
    window: int | None = option(
        None, "Compare with patches at most so many rows and columns away; absent: with all.", unit="patches", ge=0
    )
    max_images: int | None = option(None, "Draw so many training images.", ge=1)

    @property
    def is_random(self) -> bool:
        """Only a draw is."""
        return self.max_images is not None

    def for_own_scans(self) -> dict[str, Any]:
        """All patches of the images are in the model file."""
        return {} if self.is_random else {"max_images": OWN_SCANS_IMAGES}

    def fit(self, task: FitTask) -> Fitted:
        """Which images are searched [n], and the descriptor of each [n, D]: the mean of its embeddings."""
        import torch

        from dinodp.families.foreground import placed_chunks

        train, count = task.train, min(self.max_images or task.train.n_images, task.train.n_images)
        images = torch.randperm(train.n_images, generator=task.generator)[:count].sort().values.tolist()
        described = [descriptors(tokens, shown) for tokens, shown in placed_chunks(train, images)]
        state = {"images": np.array(images, dtype=np.int64), "descriptors": torch.cat(described).numpy()}
        if task.self_contained:
            tokens, shown = map(torch.cat, zip(*placed_chunks(train, images), strict=True))
            remembered = torch.where(shown[..., None], tokens, 0).half()
            state |= {"remembered": remembered.numpy(), "shown": shown.numpy().astype(np.int64)}
        return Fitted(state, {}, None, 4 * train.dim * train.count(images) / BYTES_PER_MIB)

    def layout(self, dim: int) -> Layout:
        """Images, their descriptors, embeddings, and which of these are foreground."""
        return {
            "images": Stored((None,), 0, kind="i"),
            "descriptors": Stored((None, dim)),
            "remembered": Stored((None, None, None, dim)),
            "shown": Stored((None, None, None), 0, 1, kind="i"),
        }

    def load(self, state: Mapping[str, Any], train: Source, *, seed: int, device: str) -> RetrievalBank:
        """The bank of a model file; what is not in the file is read from ``train`` for every search."""
        return RetrievalBank(self, state, train, device)


class RetrievalBank(PlacedModel):
    """Descriptors in memory, embeddings where they are stored."""

    def __init__(self, options: RetrievalBankOptions, state: Mapping[str, Any], train: Source, device: str) -> None:
        import torch

        from dinodp.models.memory_bank import unit_vectors

        self.names, self.options, self.device = options.scores, options, device
        self._images, self._train = [int(image) for image in state["images"]], train
        self._descriptors = unit_vectors(torch.as_tensor(np.array(state["descriptors"]))).to(device)
        self._stored: tuple[torch.Tensor, torch.Tensor] | None = None
        if "remembered" in state:
            kept = [torch.as_tensor(np.array(state[key])) for key in ("remembered", "shown")]
            if kept[0].shape[:3] != kept[1].shape or len(kept[0]) != len(self._descriptors):
                raise InputError("The state's descriptors, remembered and shown are of different images.")
            self._stored = (kept[0], kept[1].bool())

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame, shown: torch.Tensor | None = None) -> Maps:
        """1 - cosine similarity [B, row, col] to the nearest patch of the retrieved images."""
        import torch

        from dinodp.families.scores import score_maps
        from dinodp.models.components import finite_matrix

        finite_matrix(tokens.flatten(0, 2), self._descriptors.shape[1])
        seen = torch.ones(tokens.shape[:3], dtype=torch.bool, device=tokens.device) if shown is None else shown
        similar = descriptors(tokens, seen).to(self.device) @ self._descriptors.T
        nearest = similar.topk(min(self.options.images, similar.shape[1]), dim=1).indices.tolist()
        found = [self._distances(image, chosen) for image, chosen in zip(tokens, nearest, strict=True)]
        return score_maps({"cosine": torch.cat(found)}, tokens, self.names)

    def _distances(self, image: torch.Tensor, chosen: Sequence[int]) -> torch.Tensor:
        """Distances [row col] of the patches [row, col, D] of an image to those of the chosen training images."""
        import torch

        from dinodp.models.memory_bank import unit_vectors

        tokens, shown = self._read(chosen)
        place = torch.nonzero(shown)
        queries, bank = (unit_vectors(x).to(self.device) for x in (image.flatten(0, 1), tokens[shown]))
        similarity = queries @ bank.T
        if self.options.window is not None:
            near = _near(image.shape[:2], place[:, 1:], self.options.window).to(self.device)
            near |= ~near.any(1, keepdim=True)  # where no training image shows anything near, look anywhere
            similarity = torch.where(near, similarity, -torch.inf)
        return 1 - similarity.amax(1)

    def _read(self, chosen: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        from dinodp.families.foreground import placed

        if self._stored is not None:
            return self._stored[0][chosen].float(), self._stored[1][chosen]
        found = placed(self._train, [self._images[index] for index in chosen])
        return found.tokens, found.shown


def descriptors(tokens: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Unit vectors [B, D]: the direction of the mean of what is ``shown`` of each image, of all where nothing is.

    Raises InputError for values that are not finite, and for a mean of length zero.
    """
    import torch

    from dinodp.models.components import finite_matrix
    from dinodp.models.memory_bank import unit_vectors

    counted = shown | ~shown.flatten(1).any(1)[:, None, None]
    finite_matrix(tokens[counted])
    x = torch.where(counted[..., None], tokens, 0).double()
    return unit_vectors(x.sum((1, 2)) / counted.sum((1, 2))[:, None])


def _near(grid: Sequence[int], places: torch.Tensor, window: int) -> torch.Tensor:
    """Bool [row col, n]: which places [n, 2] lie within the window about each place of the grid."""
    import torch

    own = torch.cartesian_prod(*(torch.arange(side) for side in grid))
    near: torch.Tensor = ((own[:, None] - places[None]).abs() <= window).all(2)
    return near
