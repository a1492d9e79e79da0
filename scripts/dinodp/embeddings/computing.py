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
from dinodp.errors import InputError, full_disk_told
from dinodp.images import UInt8Array, read_image
from dinodp.jobs.closure import code_digest
from dinodp.jobs.logs import progress
from dinodp.jobs.origin import require_unchanged

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
    made_from: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Write raw patch embeddings of the manifest rows ``frame``, or of one ``shard`` of them, to ``path``.

    ``tokens`` is float16 [image, row, col, dim], in one piece, in the order of ``frame``; ``foreground`` is bool
    [image, row, col], which patches show a pixel that is not black. Batches are written as they come to
    ``<path>.partial``, from which an interrupted run goes on to the same bytes (but for the last bits where memory ran
    out: `Embedder`). Decoding runs ahead and writing behind, in threads, while the backbone computes.
    ``made_from``: digests that the file names as its inputs. Returns the seconds spent and images embedded by this
    call. A shard without any image is a file without any. Raises InputError when the split is empty, its images give
    different patch grids, or an image is not the one whose digest the manifest holds.
    """
    if frame.empty:
        raise InputError(f"No image to embed for {path}: the split is empty in the manifest.")
    chosen = shard.images(len(frame), batch_size)
    frame = frame[chosen.start : chosen.stop]
    if frame.empty:
        with store.writing(path, "embeddings", config, made_from) as file:
            file.create_dataset("tokens", shape=(0, 0, 0, 0), dtype=np.float16, track_times=False)
        return {"seconds": 0.0, "images": 0.0}
    images = list(zip(frame["image"], frame["image_sha256"], strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = TokenWriter(
        path.with_name(path.name + ".partial"),
        _identity(frame, backbone, config, made_from),
        len(images),
        backbone,
        config,
        made_from,
    )
    start, done = perf_counter(), writer.done
    with full_disk_told(path), writer:
        first, batches = done, Embedder(backbone, batch_size, workers).embed_shown(images[done:], _read_unchanged)
        for tokens, shown in progress(batches, "embed", total=len(images) - done, per_item=batch_size):
            writer.write(first, tokens, shown)
            first += len(tokens)
    with full_disk_told(path):
        writer.finish(path)
    return {"seconds": perf_counter() - start, "images": float(len(images) - done)}


def _read_unchanged(image: tuple[str, str]) -> UInt8Array:
    """An image by its path and its digest in the manifest."""
    require_unchanged(*image)
    return read_image(image[0])


def _identity(
    frame: pd.DataFrame, backbone: Backbone, config: Mapping[str, Any], made_from: Mapping[str, str] | None
) -> str:
    content = [
        list(frame["image_sha256"]), backbone.provenance(), dict(config), dict(made_from or {}), code_digest(__name__)
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
