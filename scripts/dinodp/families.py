"""The families of models behind one set of functions: fit to a file, load from it, score a split.

A new family is one class with ``fit``, ``load`` and ``score`` and one line in ``FAMILIES``.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from dinodp import store
from dinodp.distributed import current_group, is_first
from dinodp.embeddings import EmbeddingReader
from dinodp.errors import require_known
from dinodp.features import Features
from dinodp.images import read_mask
from dinodp.logs import logger, progress
from dinodp.manifest import select
from dinodp.models import DirichletProcessMixture, MemoryBank, coreset, few_shot, fit_mixture
from dinodp.models.bayesian import BayesianFamily
from dinodp.models.gaussian import GaussianFamily
from dinodp.models.gaussian_mixture import GaussianMixture
from dinodp.models.k_means import KMeansFamily
from dinodp.scores import image_score, patch_scores

Maps = dict[str, npt.NDArray[np.float32]]
BYTES_PER_MIB = 2**20
BYTES_PER_GIB = 2**30
IMAGES_PER_READ = 8
IMAGES_PER_PASS = 64  # through a streamed bank, so that reading it stays a small part of the search
BANK_MEMORY_GIB = 4.0  # of the host; a larger bank is streamed
GPU_MEMORY_SHARE = 0.5  # of what is free


class FittedModel(Protocol):
    """A model that scores patches: ``score(tokens [B, r, c, D], rows)`` -> {score: float32 [B, r, c]}."""

    names: Sequence[str]

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Patch scores of a batch of images, whose manifest rows are ``rows``; higher is more anomalous."""


def open_split(
    path: Path,
    options: Mapping[str, Any],
    grid: Sequence[int] | None,
    manifest: pd.DataFrame,
    split: str,
    *,
    normal_only: bool = False,
    images: range | None = None,
    cache: str = "none",
) -> EmbeddingReader:
    """Open the embeddings of a split as the model sees them; only normal images, or those of a shard, if asked.

    ``cache``: `TokenRows`.
    """
    labels = select(manifest, split)["label"].tolist()
    chosen = range(len(labels)) if images is None else images
    rows = [index for index in chosen if labels[index] == "normal" or not normal_only]
    shape = (int(grid[0]), int(grid[1])) if grid else None
    return EmbeddingReader(
        path,
        normalise=bool(options.get("normalise", True)),
        grid=shape,
        rows=rows,
        resample=options.get("resample", "after_normalisation"),
        cache=cache,
    )


def fit_model(
    path: Path, options: Mapping[str, Any], train: EmbeddingReader, valid: EmbeddingReader, *, seed: int, device: str
) -> dict[str, float | None]:
    """Fit a model of the catalog and write it. Returns its size in MiB and its number of active components.

    Of several processes (``dinodp.distributed``) that fit it together, the first one writes.
    """
    require_known("model family", options["family"], FAMILIES)
    generator = torch.Generator().manual_seed(seed)
    checkpoint = path.with_name(path.name + ".checkpoint")
    features = Features.fit(options, train)
    fitted: Fit = FAMILIES[options["family"]].fit(
        options, features.of(train), features.of(valid), generator, device, checkpoint
    )
    state, history, size = fitted
    if is_first(current_group()):
        store.write_state(path, {**options, "seed": seed}, {**state, **features.state}, history)
        checkpoint.unlink(missing_ok=True)
    return size


def load_model(path: Path, train: EmbeddingReader, *, device: str) -> FittedModel:
    """Load a fitted model. A memory bank reads its embeddings from ``train``, of which its file holds the indices."""
    config, state, _ = store.read_state(path)
    require_known("model family", config["family"], FAMILIES)
    features = Features.load(config, state)
    model: FittedModel = features.before(FAMILIES[config["family"]].load(config, state, features.of(train), device))
    return model


def images_per_read(model: FittedModel) -> int:
    """How many images a model scores at once: a shard holds a whole number of such batches."""
    return int(getattr(model, "images_per_read", IMAGES_PER_READ))


def score_split(
    model: FittedModel, source: EmbeddingReader, rows: pd.DataFrame, path: Path, image_score_fraction: float = 0.01
) -> dict[str, float]:
    """Score every image of a split (or of a shard, which may have none) into one file. Returns seconds and images."""
    start = perf_counter()
    size = images_per_read(model)
    batches = [range(first, min(first + size, source.n_images)) for first in range(0, source.n_images, size)]
    parts = [
        model.score(source.read(batch), rows.iloc[list(batch)])
        for batch in progress(batches, "score", total=source.n_images, per_item=size)
    ]
    none = np.zeros((0, 1, 1), dtype=np.float32)
    maps = {name: np.concatenate([part[name] for part in parts]) if parts else none for name in model.names}
    images = {name: image_score(values, image_score_fraction) for name, values in maps.items()}
    store.write_maps(path, {"scores": list(model.names)}, maps, images)
    return {"seconds": perf_counter() - start, "images": float(source.n_images)}


Fit = tuple[dict[str, Any], dict[str, Any], dict[str, float | None]]


class DpmmFamily:
    """Dirichlet process mixture, or one without its prior; its file holds all parameters and sufficient statistics."""

    def __init__(self, mixture: DirichletProcessMixture, names: Sequence[str]) -> None:
        self.mixture, self.names = mixture, names

    @staticmethod
    def build(options: Mapping[str, Any], device: str) -> DirichletProcessMixture:
        """The mixture that a catalog entry describes."""
        common: dict[str, Any] = {
            "n_components": options.get("components", 500),
            "covariance_type": options.get("covariance", "diag"),
            "reg_covar": options.get("reg_covar", 1e-6),
            "step_schedule": options.get("step_schedule", "ema"),
            "step_rate": options.get("step_rate", 0.2),
            "device": device,
        }
        if options["family"] == "gaussian_mixture":
            return GaussianMixture(**common)
        return DirichletProcessMixture(
            concentration=options.get("concentration", 2.0),
            fix_concentration=options.get("fix_concentration", False),
            **common,
        )

    @classmethod
    def fit(
        cls,
        options: Mapping[str, Any],
        train: EmbeddingReader,
        valid: EmbeddingReader,
        generator: torch.Generator,
        device: str,
        checkpoint: Path,
    ) -> Fit:
        """Online EM over mini-batches of images, keeping the epoch with the best validation likelihood."""
        mixture = cls.build(options, device)
        mixture.process_group = current_group()
        history = fit_mixture(
            mixture,
            train,
            valid,
            epochs=options.get("epochs", 40),
            images_per_batch=options.get("images_per_batch", 12),
            generator=generator,
            init=options.get("init", "spread"),
            checkpoint=checkpoint,
        )
        state = {name: np.asarray(value) for name, value in mixture.state_dict().items()}
        active = int(mixture.active_.sum())
        return state, history.arrays(), {"model_mib": _mib(state), "active_components": active}

    @classmethod
    def load(
        cls, config: Mapping[str, Any], state: Mapping[str, Any], train: EmbeddingReader, device: str
    ) -> "DpmmFamily":
        """The mixture as it was at the chosen epoch."""
        mixture = cls.build(config, device)
        mixture.load_state(state)
        return cls(mixture, config["scores"])

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Distances to the nearest active component and negative log-likelihood."""
        return patch_scores(self.mixture, tokens, self.names)


class MemoryBankFamily:
    """Memory bank; its file holds which images (or embeddings) are remembered, not the embeddings once more."""

    def __init__(self, bank: MemoryBank, names: Sequence[str], images_per_read: int = IMAGES_PER_READ) -> None:
        self.bank, self.names, self.images_per_read = bank, names, images_per_read

    @staticmethod
    def fit(
        options: Mapping[str, Any],
        train: EmbeddingReader,
        valid: EmbeddingReader,
        generator: torch.Generator,
        device: str,
        checkpoint: Path,
    ) -> Fit:
        """Choose images (all, or ``shots`` of them) and of their embeddings all, or a coreset."""
        shots = options.get("shots")
        images = np.arange(train.n_images) if shots is None else np.sort(few_shot(train.n_images, shots, generator))
        state: dict[str, Any] = {"images": images.astype(np.int64)}
        n_embeddings = len(images) * train.n_patches
        if fraction := options.get("coreset_fraction"):
            n_embeddings = max(1, int(n_embeddings * fraction))
            chosen = coreset(_all_embeddings(train, images.tolist()), n_embeddings, generator)
            state["embeddings"] = np.asarray(chosen, dtype=np.int64)
        # float32, as it lies in memory when it scores
        size = n_embeddings * train.dim * 4 / BYTES_PER_MIB
        logger.info("Memory bank: %d embeddings of %d images, %.0f MiB.", n_embeddings, len(images), size)
        return state, {}, {"model_mib": size, "active_components": None}

    @classmethod
    def load(
        cls, config: Mapping[str, Any], state: Mapping[str, Any], train: EmbeddingReader, device: str
    ) -> "MemoryBankFamily":
        """Read the remembered embeddings from the training split: now, or for every search where they are too many."""
        images = [int(index) for index in state["images"]]
        bank, n_embeddings = MemoryBank(device=device), len(images) * train.n_patches
        if "embeddings" in state:
            bank.fit(_all_embeddings(train, images)[torch.from_numpy(state["embeddings"])])
        elif (size := n_embeddings * train.dim * 4) <= (limit := _bank_memory(config, device)):
            bank.fit(_chunks(train, images), n_embeddings)
        else:
            logger.info("The memory bank takes %d MiB, over %d: it is streamed.", size // 2**20, limit // 2**20)
            bank.fit_streamed(lambda: _chunks(train, images), train.dim)
            return cls(bank, config["scores"], IMAGES_PER_PASS)
        return cls(bank, config["scores"])

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """1 - cosine similarity to the nearest remembered embedding."""
        return patch_scores(self.bank, tokens, self.names)


def _bank_memory(config: Mapping[str, Any], device: str) -> float:
    """Bytes that a memory bank may take on its device: ``bank_memory_gib``, else a fixed share."""
    if (gib := config.get("bank_memory_gib")) is not None:
        return float(gib) * BYTES_PER_GIB
    if torch.device(device).type == "cuda":
        return GPU_MEMORY_SHARE * torch.cuda.mem_get_info()[0]
    return BANK_MEMORY_GIB * BYTES_PER_GIB


def _chunks(source: EmbeddingReader, images: Sequence[int]) -> Iterator[torch.Tensor]:
    for start in range(0, len(images), IMAGES_PER_READ):
        yield source.read([int(index) for index in images[start : start + IMAGES_PER_READ]]).flatten(0, 2)


def _all_embeddings(source: EmbeddingReader, images: Sequence[int]) -> torch.Tensor:
    return torch.cat(list(_chunks(source, images)))


class ControlFamily:
    """Controls that bound every metric: ``random`` scores from a seed and the ``oracle`` that knows the mask."""

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self.names, self.seed = names, seed

    @staticmethod
    def fit(
        options: Mapping[str, Any],
        train: EmbeddingReader,
        valid: EmbeddingReader,
        generator: torch.Generator,
        device: str,
        checkpoint: Path,
    ) -> Fit:
        """Nothing to fit."""
        return {}, {}, {"model_mib": 0.0, "active_components": None}

    @classmethod
    def load(
        cls, config: Mapping[str, Any], state: Mapping[str, Any], train: EmbeddingReader, device: str
    ) -> "ControlFamily":
        """A control needs its seed only."""
        return cls(config["scores"], int(config["seed"]))

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Uniform noise that depends on seed and image, or the share of each patch that the mask covers."""
        shape = (int(tokens.shape[1]), int(tokens.shape[2]))
        draw = {"random": self._random, "oracle": _mask_share}
        return {name: np.stack([draw[name](row, shape) for row in rows.itertuples()]) for name in self.names}

    def _random(self, row: Any, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        digest = hashlib.sha256(f"{self.seed} {row.image_sha256}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        return generator.random(shape, dtype=np.float32)


def _mask_share(row: Any, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    if not row.mask:
        return np.full(shape, float(row.label == "anomalous"), dtype=np.float32)
    mask = torch.from_numpy(read_mask(row.mask) > 0).float()
    return torch.nn.functional.adaptive_avg_pool2d(mask[None, None], shape)[0, 0].numpy()


def _mib(state: Mapping[str, Any]) -> float:
    return float(sum(np.asarray(value).nbytes for value in state.values())) / BYTES_PER_MIB


FAMILIES: dict[str, Any] = {
    "dpmm": DpmmFamily,
    "memory_bank": MemoryBankFamily,
    "gaussian_mixture": DpmmFamily,
    "k_means": KMeansFamily,
    "gaussian": GaussianFamily,
    "bayesian_mixture": BayesianFamily,
    "control": ControlFamily,
}
