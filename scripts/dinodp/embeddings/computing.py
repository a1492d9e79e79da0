"""Compute patch embeddings image by image into HDF5."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from dinodp import store
from dinodp.backbones import Backbone
from dinodp.embeddings.embedder import Embedder
from dinodp.embeddings.shards import Shard
from dinodp.embeddings.writer import TokenWriter
from dinodp.errors import InputError
from dinodp.images import read_image
from dinodp.jobs.closure import code_digest
from dinodp.jobs.logs import progress

WHOLE = Shard()


def embed_split(
    frame: pd.DataFrame,
    backbone: Backbone,
    path: Path,
    config: Mapping[str, Any],
    *,
    shard: Shard = WHOLE,
    batch_size: int = 8,
    workers: int = 2,
) -> dict[str, float]:
    """Write raw patch embeddings of the manifest rows ``frame``, or of one ``shard`` of them, to ``path``.

    ``tokens`` is float16 [image, row, col, dim], one chunk per image, in the order of ``frame``; ``foreground`` is bool
    [image, row, col], which patches show a pixel that is not black. Batches are written as they come to
    ``<path>.partial``, from which an interrupted run goes on to the same bytes (but for the last bits where memory ran
    out: `Embedder`). Decoding runs ahead and writing behind, in threads, while the backbone computes.
    Returns the seconds spent and images embedded by this call. A shard without any image is a file without any.
    Raises InputError when the split is empty or its images give different patch grids.
    """
    if frame.empty:
        raise InputError(f"No image to embed for {path}: the split is empty in the manifest.")
    chosen = shard.images(len(frame), batch_size)
    frame = frame[chosen.start : chosen.stop]
    if frame.empty:
        with store.writing(path, "embeddings", config) as file:
            file.create_dataset("tokens", shape=(0, 0, 0, 0), dtype=np.float16, track_times=False)
        return {"seconds": 0.0, "images": 0.0}
    images = [Path(image) for image in frame["image"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = TokenWriter(
        path.with_name(path.name + ".partial"), _identity(frame, backbone, config), len(images), backbone, config
    )
    start, done = perf_counter(), writer.done
    with writer:
        first, batches = done, Embedder(backbone, batch_size, workers).embed_shown(images[done:], read_image)
        for tokens, shown in progress(batches, "embed", total=len(images) - done, per_item=batch_size):
            writer.write(first, tokens, shown)
            first += len(tokens)
    writer.finish(path)
    return {"seconds": perf_counter() - start, "images": float(len(images) - done)}


def _identity(frame: pd.DataFrame, backbone: Backbone, config: Mapping[str, Any]) -> str:
    content = [list(frame["image_sha256"]), backbone.provenance(), dict(config), code_digest(__name__)]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
