"""Write the patch embeddings of a split batch by batch, in a thread, such that an interrupted run can go on."""

import json
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import torch

from dinodp import store
from dinodp.backbones import Backbone
from dinodp.errors import InputError
from dinodp.jobs.logs import logger

PENDING = 2  # batches that may wait to be written


class TokenWriter:
    """Writes tokens to ``path`` while the backbone goes on; ``done`` images were there already.

    After each batch the file is flushed and the number of images noted beside it under ``key``. All space is allocated
    at the start, so the bytes do not depend on interruptions. Leaving the block waits for what is pending.
    Raises InputError, from ``write`` or at the end, for tokens beyond float16 or of another patch grid.
    """

    def __init__(self, path: Path, key: str, n_images: int, backbone: Backbone, config: Mapping[str, Any]) -> None:
        self.path, self.key, self.n_images, self.backbone, self.config = path, key, n_images, backbone, config
        self.done = _images_done(path, key)

    def __enter__(self) -> Self:
        # the cache of chunks is off: a chunk is written once and whole
        self._file = h5py.File(self.path, "a", rdcc_nbytes=0)
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: deque[Future[None]] = deque()
        self._failed = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        self._file.close()
        if kind is None:
            for future in self._pending:
                future.result()

    def write(self, first: int, tokens: torch.Tensor, foreground: torch.Tensor) -> None:
        """Have tokens [B, row, col, dim], on any device, and their foreground bool [B, row, col] written at image
        ``first``; batches come in order."""
        while len(self._pending) >= PENDING:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._store, first, tokens, foreground))

    def finish(self, path: Path) -> None:
        """Give the complete file its name."""
        self.path.replace(path)
        _progress_file(self.path).unlink(missing_ok=True)

    def _store(self, first: int, tokens: torch.Tensor, foreground: torch.Tensor) -> None:
        if self._failed:  # what follows a batch that is missing must not be noted as done
            return
        self._failed = True
        half = tokens.half()
        if not bool(torch.isfinite(half).all()):
            raise InputError(
                f"The backbone {self.backbone.name} gave embeddings outside the range of float16 or not finite "
                f"for image rows {first} to {first + len(tokens) - 1}."
            )
        if "tokens" not in self._file:
            _create_tokens(self._file, (self.n_images, *half.shape[1:]), self.backbone, self.config)
        data = self._file["tokens"]
        if tuple(half.shape[1:]) != data.shape[1:]:
            raise InputError(
                f"Image rows from {first} give a patch grid of {tuple(half.shape[1:3])}, the first image "
                f"{data.shape[1:3]}: all images of a data set need one shape (set `square: true` in the embedding)."
            )
        data[first : first + len(half)] = half.cpu().numpy()
        self._file["foreground"][first : first + len(half)] = foreground.cpu().numpy()
        self._file.flush()
        _note_progress(self.path, self.key, first + len(half))
        self._failed = False


def _progress_file(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _images_done(partial: Path, key: str) -> int:
    """Number of images in an interrupted file made from the same images, backbone and code; else start anew."""
    try:
        state = json.loads(_progress_file(partial).read_text())
        if partial.is_file() and state["key"] == key:
            logger.info("Resume %s after %d images.", partial.name, state["done"])
            return int(state["done"])
    except (OSError, ValueError, KeyError):
        pass
    partial.unlink(missing_ok=True)
    _progress_file(partial).unlink(missing_ok=True)
    return 0


def _note_progress(partial: Path, key: str, done: int) -> None:
    target = _progress_file(partial)
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_text(json.dumps({"key": key, "done": done}))
    temporary.replace(target)


def _create_tokens(file: h5py.File, shape: tuple[int, ...], backbone: Backbone, config: Mapping[str, Any]) -> None:
    _allocate(file, b"tokens", "float16", shape, chunk=(1, *shape[1:]))
    _allocate(file, b"foreground", "bool", shape[:3], chunk=shape[:3])
    store.describe_origin(file, "embeddings", config)
    file.attrs.update({name: str(value) for name, value in backbone.provenance().items()})


def _allocate(file: h5py.File, name: bytes, kind: str, shape: tuple[int, ...], chunk: tuple[int, ...]) -> None:
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk(chunk)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)
    stored = h5py.h5t.py_create(np.dtype(kind), logical=True)
    h5py.h5d.create(file.id, name, stored, h5py.h5s.create_simple(shape), dcpl=layout)
