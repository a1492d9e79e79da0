"""Compute patch embeddings image by image into HDF5."""

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch

from dinodp import store
from dinodp.backbones import Backbone
from dinodp.embeddings.shards import Shard
from dinodp.embeddings.writer import TokenWriter
from dinodp.errors import InputError
from dinodp.images import read_image
from dinodp.jobs.closure import code_digest
from dinodp.jobs.logs import progress
from dinodp.jobs.prefetch import prefetched

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

    ``tokens`` is float16 [image, row, col, dim], one chunk per image, in the order of ``frame``. Batches are written as
    they come to ``<path>.partial``, from which an interrupted run goes on to the same bytes. Decoding runs ahead and
    writing behind, both in threads, while the backbone computes. Returns the seconds spent and images embedded by this
    call. A shard without any image is a file without any.
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
        batches = _embed_batches(images[done:], backbone, batch_size, workers)
        for first, tokens in progress(batches, "embed", total=len(images) - done, per_item=batch_size):
            writer.write(done + first, tokens)
    writer.finish(path)
    return {"seconds": perf_counter() - start, "images": float(len(images) - done)}


def _identity(frame: pd.DataFrame, backbone: Backbone, config: Mapping[str, Any]) -> str:
    content = [list(frame["image_sha256"]), backbone.provenance(), dict(config), code_digest(__name__)]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _embed_batches(
    images: Sequence[Path], backbone: Backbone, batch_size: int, workers: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (index of the first image, tokens) per batch of images of equal size; decoding runs ahead in threads."""
    first = 0
    with ThreadPoolExecutor(max_workers=workers) as pool:
        prepared = _run_ahead(pool, backbone, images, ahead=2 * batch_size)
        pin = getattr(backbone, "device", torch.device("cpu")).type == "cuda"
        for pixels in prefetched(_batches(prepared, batch_size, pin)):
            yield first, backbone.embed(pixels)
            first += len(pixels)


def _run_ahead(
    pool: ThreadPoolExecutor, backbone: Backbone, images: Sequence[Path], ahead: int
) -> Iterator[torch.Tensor]:
    def decode(image: Path) -> torch.Tensor:
        return backbone.prepare(read_image(image))

    remaining = iter(images)
    queue: deque[Future[torch.Tensor]] = deque(pool.submit(decode, image) for image in islice(remaining, ahead))
    while queue:
        yield queue.popleft().result()
        queue.extend(pool.submit(decode, image) for image in islice(remaining, 1))


def _batches(tensors: Iterable[torch.Tensor], batch_size: int, pin: bool) -> Iterator[torch.Tensor]:
    """Stack [3, H, W] tensors to batches, in pinned memory if asked; a change of size starts a new batch."""
    batch: list[torch.Tensor] = []
    for tensor in tensors:
        if batch and (len(batch) == batch_size or tensor.shape != batch[0].shape):
            yield _stack(batch, pin)
            batch = []
        batch.append(tensor)
    if batch:
        yield _stack(batch, pin)


def _stack(batch: list[torch.Tensor], pin: bool) -> torch.Tensor:
    pixels = torch.stack(batch)
    return pixels.pin_memory() if pin else pixels
