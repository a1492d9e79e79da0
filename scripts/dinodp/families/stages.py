"""The stages of a model, from files to files: open embeddings as it sees them, fit, load, score a split."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
import torch

from dinodp import store
from dinodp.datasets.manifest import manifest_digest, select
from dinodp.embeddings import EmbeddingReader
from dinodp.errors import InputError
from dinodp.families.base import (
    FeatureOptions,
    FitTask,
    Fitted,
    FittedModel,
    MaskedSource,
    ModelOptions,
    PlacedModel,
)
from dinodp.families.features import IMAGES_PER_READ, Features
from dinodp.families.foreground import learnt_from, lowered
from dinodp.families.soundness import require_sound
from dinodp.images import image_score
from dinodp.jobs.checkpoints import Checkpoint
from dinodp.jobs.closure import code_digest
from dinodp.jobs.devices import device_of_models
from dinodp.jobs.logs import progress
from dinodp.jobs.origin import AGAIN, require_made_from, sha256
from dinodp.jobs.prefetch import prefetched
from dinodp.jobs.processes import current_group, is_first
from dinodp.options.choices import Background
from dinodp.store import Maps


def open_split(
    path: Path,
    options: FeatureOptions,
    grid: Sequence[int] | None,
    manifest: pd.DataFrame,
    split: str,
    *,
    normal_only: bool = False,
    images: range | None = None,
    cache: str = "none",
) -> EmbeddingReader:
    """Open the embeddings of a split as the model sees them; only normal images, or those of a shard, if asked.

    ``cache``: `TokenRows`. Raises InputError where the embeddings are not of the images of this manifest.
    """
    labels = select(manifest, split)["label"].tolist()
    chosen = range(len(labels)) if images is None else images
    rows = [index for index in chosen if labels[index] == "normal" or not normal_only]
    shape = (int(grid[0]), int(grid[1])) if grid else None
    reader = EmbeddingReader(
        path, normalise=options.normalise, grid=shape, rows=rows, resample=options.resample, cache=cache
    )
    require_made_from(path, reader.made_from, "manifest", manifest_digest(manifest), "this manifest")
    if reader.n_stored != len(labels):
        raise InputError(f"{path} holds {reader.n_stored} images, the {split} split {len(labels)}: {AGAIN}.")
    return reader


def require_same_embedding(first: EmbeddingReader, other: EmbeddingReader) -> None:
    """Raise InputError unless both are of the same data, backbone and options."""
    if first.made_by != other.made_by:
        names = {name for name, _ in first.made_by.items() ^ other.made_by.items()}
        raise InputError(
            f"{other.path} has another {', '.join(sorted(names))} than {first.path}: delete the one that is of another "
            "run and run again."
        )


def fit_model(
    path: Path, options: ModelOptions, train: EmbeddingReader, valid: EmbeddingReader, *, seed: int, device: str
) -> dict[str, float | None]:
    """Fit a model and write it. Returns its size in MiB and its number of active components.

    The file's configuration is `ModelOptions.fit_options` and ``seed``; it names both splits and their manifest. Of
    several processes (``dinodp.jobs.processes``) that fit it together, the first one writes.
    """
    require_same_embedding(train, valid)
    config = {**options.fit_options(), "seed": seed}
    made_from = {"train": train.digest, "valid": valid.digest}
    key = sha256(json.dumps([config, made_from, train.seen(), valid.seen(), code_digest("dinodp.families")]))
    checkpoint = Checkpoint(path.with_name(path.name + ".checkpoint"), key)
    fitted = fit_state(options, train, valid, seed=seed, device=device, checkpoint=checkpoint)
    if is_first(current_group()):
        made_from |= {name: train.made_from[name] for name in ("manifest",) if name in train.made_from}
        store.write_state(path, config, fitted.state, fitted.history, made_from=made_from)
        checkpoint.path.unlink(missing_ok=True)
    return fitted.cost()


def fit_state(
    options: ModelOptions,
    train: MaskedSource,
    valid: MaskedSource,
    *,
    seed: int,
    device: str,
    checkpoint: Checkpoint | None = None,
    self_contained: bool = False,
) -> Fitted:
    """Fit a model of features of embeddings; the state is what `model_of` needs. ``self_contained``: `FitTask`."""
    features, generator = Features.fit(options, learnt_from(options, train)), torch.Generator().manual_seed(seed)
    learnt, chosen_by = (learnt_from(options, features.of(source)) for source in (train, valid))
    if learnt.n_images == 0:
        raise InputError("The training images show background only: the option background must be keep.")
    task = FitTask(learnt, chosen_by, generator, device_of_models(device), checkpoint, self_contained)
    fitted = options.fit(task)
    size = fitted.cost()["model_mib"]  # without the features
    return fitted._replace(state={**fitted.state, **features.state}, size_mib=size)


def continued_state(
    options: ModelOptions,
    state: Mapping[str, Any],
    train: MaskedSource,
    valid: MaskedSource,
    *,
    n_before: int,
    seed: int,
    device: str,
) -> Fitted:
    """A self-contained state of ``n_before`` images after more of them, with the features that it has.

    Raises InputError for a family that cannot go on, and for images of background only.
    """
    features = Features.load(options, state)
    learnt, held = (learnt_from(options, features.of(source)) for source in (train, valid))
    if learnt.n_images == 0:
        raise InputError("The new images show background only: there is nothing to go on with.")
    task = FitTask(learnt, held, torch.Generator().manual_seed(seed), device_of_models(device), self_contained=True)
    fitted = options.go_on(state, task, n_before)
    return fitted._replace(state={**fitted.state, **features.state})


def load_model(
    path: Path, options: ModelOptions, train: EmbeddingReader, *, device: str, seed: int | None = None
) -> FittedModel:
    """Load a fitted model. A memory bank reads its embeddings from ``train``, of which its file holds the indices.

    Raises InputError for a model that was not fitted on ``train``, with other options or from another ``seed``.
    """
    with store.reading(path, "model") as file:
        config, state, made_from = store.config_of(file), store.arrays_of(file, "state"), store.inputs_of(file)
    require_made_from(path, made_from, "train", train.digest, f"{train.path} as it is now")
    wanted = {**options.fit_options(), "seed": config["seed"] if seed is None else seed}
    if other := sorted({name for name in {*config, *wanted} if config.get(name) != wanted.get(name)}):
        raise InputError(f"{path} was fitted with another {', '.join(other)} than is asked for: {AGAIN}.")
    return model_of(options, state, train, seed=int(config["seed"]), device=device)


def model_of(
    options: ModelOptions, state: Mapping[str, Any], train: MaskedSource, *, seed: int, device: str
) -> FittedModel:
    """The model that a state of `fit_state` describes, behind its features."""
    features = Features.load(options, state)
    learnt = learnt_from(options, features.of(train))
    model: FittedModel = features.before(options.load(state, learnt, seed=seed, device=device_of_models(device)))
    return model


def require_sound_state(options: ModelOptions, state: Mapping[str, Any], dim: int) -> None:
    """Raise InputError unless a self-contained state fits its options and embeddings of ``dim`` numbers."""
    axes, length = Features.layout(options, dim)
    own = options.layout(length)
    require_sound(state, None if own is None else {**axes, **own})


def score_split(
    model: FittedModel,
    source: EmbeddingReader,
    rows: pd.DataFrame,
    path: Path,
    *,
    image_score_fraction: float = 0.01,
    image_score_sigma: float = 0.0,
    background: Background = "keep",
    made_from: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Score every image of a split (or of a shard, which may have none) into one file. Returns seconds and images.

    ``background``: that of the model's options; ``made_from``: digests that the file names as its inputs, beside those
    that the model itself names.
    """
    start = perf_counter()
    size = int(getattr(model, "images_per_read", IMAGES_PER_READ))
    batches = [range(first, min(first + size, source.n_images)) for first in range(0, source.n_images, size)]
    read = zip(batches, prefetched(map(source.read, batches)), strict=True)  # the next ones while these are scored
    maps, own = _Rows(source.n_images), _Rows(source.n_images)
    for batch, tokens in progress(read, "score", total=source.n_images, per_item=size):
        shown = source.foreground(batch) if background == "leave_out" else None
        found = patch_scores(model, tokens, rows.iloc[list(batch)], shown)
        maps.put(batch, found)
        if is_placed(model):
            own.put(batch, model.image_scores(tokens, found, shown))
    scores = maps.arrays or {name: np.zeros((0, 1, 1), np.float32) for name in model.names}
    images = {name: image_score(values, image_score_fraction, image_score_sigma) for name, values in scores.items()}
    images |= own.arrays
    inputs = {**(made_from or {}), **getattr(model, "made_from", {})}
    store.write_maps(path, {"scores": list(model.names)}, scores, images, inputs)
    return {"seconds": perf_counter() - start, "images": float(source.n_images)}


def patch_scores(model: FittedModel, tokens: torch.Tensor, rows: pd.DataFrame, shown: torch.Tensor | None) -> Maps:
    """Patch scores [B, row, col], those that are not ``shown`` (None: all are) below the lowest of their image."""
    seen = None if shown is None else shown.to(tokens.device)
    maps = model.score(tokens, rows, seen) if is_placed(model) else model.score(tokens, rows)
    return maps if shown is None else lowered(maps, shown.numpy())


def is_placed(model: FittedModel) -> TypeGuard[PlacedModel]:
    """Whether a model compares places."""
    return bool(getattr(model, "is_placed", False))


class _Rows:
    """Values of all images, float32, in arrays that are made once.

    Kept as they come, small arrays between the large ones of each batch would keep the allocator from using the memory
    of these again: it would grow with the images.
    """

    def __init__(self, n_images: int) -> None:
        self._n_images, self.arrays = n_images, Maps()

    def put(self, batch: range, values: Maps) -> None:
        """Values [batch, ...] by name."""
        for name, part in values.items():
            if name not in self.arrays:
                self.arrays[name] = np.empty((self._n_images, *part.shape[1:]), np.float32)
            self.arrays[name][batch.start : batch.stop] = part
