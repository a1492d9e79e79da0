"""The stages of a model, from files to files: open embeddings as it sees them, fit, load, score a split."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch

from dinodp import store
from dinodp.datasets.manifest import select
from dinodp.embeddings import EmbeddingReader
from dinodp.errors import InputError
from dinodp.families.base import FeatureOptions, FitTask, Fitted, FittedModel, MaskedSource, ModelOptions
from dinodp.families.features import IMAGES_PER_READ, Features
from dinodp.families.foreground import learnt_from, lowered
from dinodp.images import image_score
from dinodp.jobs.logs import progress
from dinodp.jobs.processes import current_group, is_first
from dinodp.options.choices import Background


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

    ``cache``: `TokenRows`.
    """
    labels = select(manifest, split)["label"].tolist()
    chosen = range(len(labels)) if images is None else images
    rows = [index for index in chosen if labels[index] == "normal" or not normal_only]
    shape = (int(grid[0]), int(grid[1])) if grid else None
    return EmbeddingReader(
        path, normalise=options.normalise, grid=shape, rows=rows, resample=options.resample, cache=cache
    )


def fit_model(
    path: Path, options: ModelOptions, train: EmbeddingReader, valid: EmbeddingReader, *, seed: int, device: str
) -> dict[str, float | None]:
    """Fit a model and write it. Returns its size in MiB and its number of active components.

    The file's configuration is `ModelOptions.fit_options` and ``seed``. Of several processes
    (``dinodp.jobs.processes``) that fit it together, the first one writes.
    """
    checkpoint = path.with_name(path.name + ".checkpoint")
    fitted = fit_state(options, train, valid, seed=seed, device=device, checkpoint=checkpoint)
    if is_first(current_group()):
        store.write_state(path, {**options.fit_options(), "seed": seed}, fitted.state, fitted.history)
        checkpoint.unlink(missing_ok=True)
    return fitted.cost()


def fit_state(
    options: ModelOptions,
    train: MaskedSource,
    valid: MaskedSource,
    *,
    seed: int,
    device: str,
    checkpoint: Path | None = None,
    self_contained: bool = False,
) -> Fitted:
    """Fit a model of features of embeddings; the state is what `model_of` needs. ``self_contained``: `FitTask`."""
    features, generator = Features.fit(options, learnt_from(options, train)), torch.Generator().manual_seed(seed)
    learnt, chosen_by = (learnt_from(options, features.of(source)) for source in (train, valid))
    if learnt.n_images == 0:
        raise InputError("The training images show background only: the option background must be keep.")
    task = FitTask(learnt, chosen_by, generator, device, checkpoint, self_contained)
    fitted = options.fit(task)
    size = fitted.cost()["model_mib"]  # without the features
    return fitted._replace(state={**fitted.state, **features.state}, size_mib=size)


def load_model(path: Path, options: ModelOptions, train: EmbeddingReader, *, device: str) -> FittedModel:
    """Load a fitted model. A memory bank reads its embeddings from ``train``, of which its file holds the indices."""
    config, state, _ = store.read_state(path)
    return model_of(options, state, train, seed=int(config["seed"]), device=device)


def model_of(
    options: ModelOptions, state: Mapping[str, Any], train: MaskedSource, *, seed: int, device: str
) -> FittedModel:
    """The model that a state of `fit_state` describes, behind its features."""
    features = Features.load(options, state)
    learnt = learnt_from(options, features.of(train))
    model: FittedModel = features.before(options.load(state, learnt, seed=seed, device=device))
    return model


def score_split(
    model: FittedModel,
    source: EmbeddingReader,
    rows: pd.DataFrame,
    path: Path,
    *,
    image_score_fraction: float = 0.01,
    background: Background = "keep",
) -> dict[str, float]:
    """Score every image of a split (or of a shard, which may have none) into one file. Returns seconds and images.

    ``background``: that of the model's options.
    """
    start = perf_counter()
    size = int(getattr(model, "images_per_read", IMAGES_PER_READ))
    batches = [range(first, min(first + size, source.n_images)) for first in range(0, source.n_images, size)]
    parts = [
        model.score(source.read(batch), rows.iloc[list(batch)])
        for batch in progress(batches, "score", total=source.n_images, per_item=size)
    ]
    none = np.zeros((0, 1, 1), dtype=np.float32)
    maps = {name: np.concatenate([part[name] for part in parts]) if parts else none for name in model.names}
    if background == "leave_out" and parts:
        maps = lowered(maps, source.foreground(range(source.n_images)).numpy())
    images = {name: image_score(values, image_score_fraction) for name, values in maps.items()}
    store.write_maps(path, {"scores": list(model.names)}, maps, images)
    return {"seconds": perf_counter() - start, "images": float(source.n_images)}
