"""Memory bank (AnomalyDINO): all training embeddings, those of a few images, or a coreset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from dinodp.errors import InputError
from dinodp.families.base import IMAGES_PER_SHARD, FitTask, Fitted, ModelOptions, Source
from dinodp.families.soundness import Stored
from dinodp.jobs.logs import logger
from dinodp.options.base import option
from dinodp.options.choices import BANK_SCORES

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp import models
    from dinodp.families.soundness import Layout
    from dinodp.store import Maps

BYTES_PER_GIB, BYTES_PER_MIB, MIB_PER_GIB = 2**30, 2**20, 2**10
BANK_MEMORY_GIB = 4.0  # of the host; a larger bank is streamed
OWN_SCANS_EMBEDDINGS = 20_000
GPU_MEMORY_SHARE = 0.5  # of what is free


class MemoryBankOptions(ModelOptions):
    """Memory bank; its file holds which images (or embeddings) are remembered, not the embeddings once more."""

    SCORES: ClassVar[tuple[str, ...]] = BANK_SCORES
    PAPER: ClassVar[Mapping[str, object]] = {}
    ANY_VALUE: ClassVar[frozenset[str]] = ModelOptions.ANY_VALUE | {"bank_memory_gib"}
    SEARCHES_TRAIN: ClassVar[bool] = True

    family: Literal["memory_bank"] = "memory_bank"
    shots: int | None = option(None, "Few-shot bank of this many training images.", ge=1)
    coreset_fraction: float | None = option(
        None, "Greedy k-center coreset of this share of the embeddings.", gt=0, le=1
    )
    max_embeddings: int | None = option(
        None, "Of the embeddings, draw about as many, equally many of each image (before a coreset).", ge=1
    )
    bank_memory_gib: float | None = option(
        None,
        "A larger memory bank is not held but streamed from its file for every 64 images, to the same scores; "
        f"absent: {BANK_MEMORY_GIB:g}, on a GPU half of its free memory.",
        unit="GiB",
        changes_result=False,
        gt=0,
    )

    @property
    def is_random(self) -> bool:
        """All training images, or a draw."""
        return any(value is not None for value in (self.shots, self.coreset_fraction, self.max_embeddings))

    def for_own_scans(self) -> dict[str, Any]:
        """A bank that would hold all is drawn: it is in the model file."""
        return {} if self.is_random else {"max_embeddings": OWN_SCANS_EMBEDDINGS}

    def fitting_mib(self, train_mib: float) -> float:
        """A coreset is chosen from the training embeddings as float32, and once more to join them."""
        return super().fitting_mib(train_mib) + self._coreset_mib(train_mib)

    def scoring_mib(self, train_mib: float) -> float:
        """A bank is held up to ``bank_memory_gib``."""
        bank = MIB_PER_GIB * (self.bank_memory_gib or BANK_MEMORY_GIB)
        return super().scoring_mib(train_mib) + bank + self._coreset_mib(train_mib)

    def _coreset_mib(self, train_mib: float) -> float:
        return 0.0 if self.coreset_fraction is None else 4 * train_mib

    def fit(self, task: FitTask) -> Fitted:
        """Choose images (all, or ``shots`` of them) and of their embeddings all, a draw, or a coreset."""
        from dinodp.models import few_shot

        train = task.train
        images = np.arange(train.n_images)
        if self.shots is not None:
            images = np.sort(few_shot(train.n_images, self.shots, task.generator))
        state: dict[str, Any] = {"images": images.astype(np.int64)}
        chosen = self._choose(train, images.tolist(), task.generator)
        if chosen is not None:
            state["embeddings"] = chosen
        if task.self_contained:
            state["remembered"] = picked(train, images.tolist(), chosen).half().numpy()
        n_embeddings = train.count(images.tolist()) if chosen is None else len(chosen)
        size = _bytes(n_embeddings, train) / BYTES_PER_MIB
        logger.info("Memory bank: %d embeddings of %d images, %.0f MiB.", n_embeddings, len(images), size)
        return Fitted(state, {}, None, size)

    def go_on(self, state: Mapping[str, Any], task: FitTask, n_before: int) -> Fitted:
        """As many embeddings as before, the new images with their share; what makes room is drawn from the old ones."""
        if self.shots is not None or self.coreset_fraction is not None or self.max_embeddings is None:
            raise InputError(
                "A memory bank of a few shots or a coreset cannot go on with new scans: fit again with all of them."
            )
        train, images = task.train, list(range(task.train.n_images))
        share = len(images) / (n_before + len(images))
        drawn = _drawn(train, images, max(1, round(share * self.max_embeddings)), task.generator)
        old = np.asarray(state["embeddings"])
        room = min(len(old), max(1, self.max_embeddings - len(drawn)))
        kept = np.sort(_permutation(len(old), task.generator)[:room])
        remembered = [np.asarray(state["remembered"])[kept], picked(train, images, drawn).half().numpy()]
        return Fitted(
            {
                "images": np.append(state["images"], int(np.max(state["images"])) + 1 + np.array(images)),
                "embeddings": np.append(old[kept], int(old.max()) + 1 + drawn),
                "remembered": np.concatenate(remembered),
            },
            {},
            None,
        )

    def _choose(
        self, train: Source, images: Sequence[int], generator: torch.Generator
    ) -> npt.NDArray[np.int64] | None:
        """Which of the embeddings of the images are remembered, numbered one image after the other; None: all."""
        from dinodp.models import coreset

        chosen = None if self.max_embeddings is None else _drawn(train, images, self.max_embeddings, generator)
        if self.coreset_fraction is None:
            return chosen
        x = picked(train, images, chosen)
        kept = np.asarray(coreset(x, max(1, int(len(x) * self.coreset_fraction)), generator), dtype=np.int64)
        return kept if chosen is None else chosen[kept]

    def layout(self, dim: int) -> Layout:
        """Which images and embeddings are remembered, and the embeddings."""
        chosen = self.coreset_fraction is not None or self.max_embeddings is not None
        return {
            "images": Stored((self.shots,), 0, kind="i"),
            "remembered": Stored((None, dim)),
            **({"embeddings": Stored((None,), 0, kind="i")} if chosen else {}),
        }

    def load(self, state: Mapping[str, Any], train: Source, *, seed: int, device: str) -> Bank:
        """Take the remembered embeddings from the state, or read them from the training split: now, or for every search
        where they are too many."""
        import torch

        from dinodp.families.features import IMAGES_PER_READ, chunks
        from dinodp.models import MemoryBank

        images = [int(index) for index in state["images"]]
        bank = MemoryBank(device=device)
        if "remembered" in state:
            bank.fit(torch.from_numpy(state["remembered"]).float())
        elif "embeddings" in state:
            bank.fit(picked(train, images, state["embeddings"]))
        elif (size := _bytes(train.count(images), train)) <= (limit := self._memory(device)):
            bank.fit(chunks(train, images), train.count(images))
        else:
            logger.info("The memory bank takes %d MiB, over %d: it is streamed.", size // 2**20, limit // 2**20)
            bank.fit_streamed(lambda: chunks(train, images), train.dim)
            return Bank(bank, self.scores, IMAGES_PER_SHARD)  # reading the bank stays a small part of the search
        return Bank(bank, self.scores, IMAGES_PER_READ)

    def _memory(self, device: str) -> float:
        """Bytes that the bank may take on its device: ``bank_memory_gib``, else a fixed share."""
        import torch

        if self.bank_memory_gib is not None:
            return self.bank_memory_gib * BYTES_PER_GIB
        kind = torch.device(device).type
        if kind != "cpu":
            return GPU_MEMORY_SHARE * float(getattr(torch, kind).mem_get_info()[0])
        return BANK_MEMORY_GIB * BYTES_PER_GIB


class Bank:
    """The remembered embeddings and how many images are searched for at once."""

    def __init__(self, bank: models.MemoryBank, names: Sequence[str], images_per_read: int) -> None:
        self.bank, self.names, self.images_per_read = bank, names, images_per_read

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """1 - cosine similarity to the nearest remembered embedding."""
        from dinodp.families.scores import score_maps

        return score_maps({"cosine": self.bank.distances(tokens.flatten(0, 2))}, tokens, self.names)


def picked(train: Source, images: Sequence[int], chosen: npt.NDArray[np.int64] | None) -> torch.Tensor:
    """Embeddings float32 [n, D] of the images: all, or the chosen ones in their order."""
    import torch

    from dinodp.families.features import chunks

    if chosen is None:
        return torch.cat(list(chunks(train, images)))
    found, first = torch.empty(len(chosen), train.dim), 0
    for x in chunks(train, images):  # all of them may not fit in memory
        inside = (chosen >= first) & (chosen < first + len(x))
        found[torch.from_numpy(inside)] = x[torch.from_numpy(chosen[inside] - first)]
        first += len(x)
    return found


def _permutation(n: int, generator: torch.Generator) -> npt.NDArray[np.int64]:
    """A random order of n things."""
    import torch

    return np.asarray(torch.randperm(n, generator=generator).numpy())


def _drawn(train: Source, images: Sequence[int], count: int, generator: torch.Generator) -> npt.NDArray[np.int64]:
    """About ``count`` of the embeddings of the images, equally many of each, drawn without replacement."""
    import torch

    per_image, drawn, first = -(-count // len(images)), [], 0
    for image in images:
        n_embeddings = len(train.read([image]).flatten(0, 2))
        drawn.append(first + torch.randperm(n_embeddings, generator=generator)[:per_image].numpy())
        first += n_embeddings
    return np.concatenate(drawn)


def _bytes(n_embeddings: int, train: Source) -> int:
    """In float32, as a bank lies in memory when it scores."""
    return n_embeddings * train.dim * 4
