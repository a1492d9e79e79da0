"""Memory bank (AnomalyDINO): all training embeddings, those of a few images, or a coreset."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from dinodp.families.base import IMAGES_PER_SHARD, FitTask, Fitted, Source
from dinodp.families.features import IMAGES_PER_READ, chunks
from dinodp.families.scores import patch_scores
from dinodp.jobs.costs import BYTES_PER_MIB
from dinodp.jobs.logs import logger
from dinodp.models import MemoryBank, coreset, few_shot
from dinodp.store import Maps

BYTES_PER_GIB = 2**30
BANK_MEMORY_GIB = 4.0  # of the host; a larger bank is streamed
GPU_MEMORY_SHARE = 0.5  # of what is free


class MemoryBankFamily:
    """Memory bank; its file holds which images (or embeddings) are remembered, not the embeddings once more."""

    def __init__(self, bank: MemoryBank, names: Sequence[str], images_per_read: int = IMAGES_PER_READ) -> None:
        self.bank, self.names, self.images_per_read = bank, names, images_per_read

    @staticmethod
    def fit(options: Mapping[str, Any], task: FitTask) -> Fitted:
        """Choose images (all, or ``shots`` of them) and of their embeddings all, or a coreset."""
        train, shots = task.train, options.get("shots")
        images = np.arange(train.n_images)
        if shots is not None:
            images = np.sort(few_shot(train.n_images, shots, task.generator))
        state: dict[str, Any] = {"images": images.astype(np.int64)}
        n_embeddings = len(images) * train.n_patches
        if fraction := options.get("coreset_fraction"):
            n_embeddings = max(1, int(n_embeddings * fraction))
            chosen = coreset(torch.cat(list(chunks(train, images.tolist()))), n_embeddings, task.generator)
            state["embeddings"] = np.asarray(chosen, dtype=np.int64)
        size = _bytes(n_embeddings, train) / BYTES_PER_MIB
        logger.info("Memory bank: %d embeddings of %d images, %.0f MiB.", n_embeddings, len(images), size)
        return Fitted(state, {}, None, size)

    @classmethod
    def load(
        cls, config: Mapping[str, Any], state: Mapping[str, Any], train: Source, device: str
    ) -> "MemoryBankFamily":
        """Read the remembered embeddings from the training split: now, or for every search where they are too many."""
        images = [int(index) for index in state["images"]]
        bank, n_embeddings = MemoryBank(device=device), len(images) * train.n_patches
        if "embeddings" in state:
            bank.fit(torch.cat(list(chunks(train, images)))[torch.from_numpy(state["embeddings"])])
        elif (size := _bytes(n_embeddings, train)) <= (limit := _bank_memory(config, device)):
            bank.fit(chunks(train, images), n_embeddings)
        else:
            logger.info("The memory bank takes %d MiB, over %d: it is streamed.", size // 2**20, limit // 2**20)
            bank.fit_streamed(lambda: chunks(train, images), train.dim)
            return cls(bank, config["scores"], IMAGES_PER_SHARD)  # reading the bank stays a small part of the search
        return cls(bank, config["scores"])

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """1 - cosine similarity to the nearest remembered embedding."""
        return patch_scores(self.bank, tokens, self.names)


def _bytes(n_embeddings: int, train: Source) -> int:
    """In float32, as a bank lies in memory when it scores."""
    return n_embeddings * train.dim * 4


def _bank_memory(config: Mapping[str, Any], device: str) -> float:
    """Bytes that a memory bank may take on its device: ``bank_memory_gib``, else a fixed share."""
    if (gib := config.get("bank_memory_gib")) is not None:
        return float(gib) * BYTES_PER_GIB
    if torch.device(device).type == "cuda":
        return GPU_MEMORY_SHARE * torch.cuda.mem_get_info()[0]
    return BANK_MEMORY_GIB * BYTES_PER_GIB
