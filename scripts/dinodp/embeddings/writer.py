"""Write the patch embeddings of a split batch by batch, in a thread, such that an interrupted run can go on."""

import os
import shutil
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
import numpy.typing as npt
import torch

from dinodp import store
from dinodp.backbones import Backbone
from dinodp.errors import HDF5_ERRORS, InputError, full_disk_told, require_space
from dinodp.jobs.files import sync
from dinodp.jobs.logs import logger

PENDING = 2  # batches that may wait to be written
STRUCTURE = store.HEAD_BYTES + 24  # bytes: before it HDF5 notes whether the file is open
BESIDE_IMAGES = 2**16  # bytes: structure and attributes of the file
SECONDS_BETWEEN_NOTES = 2.0  # an interruption loses as much


class Written(NamedTuple):
    """Of one image: the digest of its embeddings, and its foreground, one bit a patch."""

    digest: bytes
    foreground: bytes

    @classmethod
    def of(cls, tokens: npt.NDArray[np.float16], foreground: npt.NDArray[np.bool_]) -> "Written":
        """Of embeddings [row, col, dim] as they are stored, and of patches [row, col]."""
        return cls(store.image_digest(tokens), np.packbits(foreground).tobytes())


class TokenWriter:
    """Writes tokens to ``path`` while the backbone goes on; ``done`` images were there already.

    Every few seconds what was written is brought to disk and then noted beside it: under ``key`` the digest of each
    image, which is compared with what is there before a run goes on, and its foreground. All space is allocated at the
    start, so the bytes do not depend on interruptions. Leaving the block waits for what is pending.
    Raises InputError, from ``write`` or at the end, for tokens beyond float16 or of another patch grid, and where
    another process writes the file.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        n_images: int,
        backbone: Backbone,
        config: Mapping[str, Any],
        made_from: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self.key, self.n_images, self.backbone = path, key, n_images, backbone
        self._attributes = store.origin_attributes(path.with_suffix(""), "embeddings", config, made_from)
        self._attributes |= {name: str(value) for name, value in backbone.provenance().items()}
        self._written = _finished_images(path, key, n_images, self._attributes)

    @property
    def done(self) -> int:
        """How many images are written."""
        return len(self._written)

    def __enter__(self) -> Self:
        size = None if self.path.is_file() else store.HEAD_BYTES
        if size is not None:
            self._reserve(BESIDE_IMAGES)
        with store.hdf5_errors(self.path):
            self._file = h5py.File(self.path, "a" if size is None else "w", userblock_size=size)
        self._number = self.path.stat().st_ino
        self._pool, self._digesting = ThreadPoolExecutor(max_workers=1), ThreadPoolExecutor(max_workers=2)
        self._pending: deque[Future[None]] = deque()
        self._failed = False
        self._noted, self._noted_at = self.done, time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        self._digesting.shutdown()
        try:
            self._note()
            if self.done == self.n_images:
                self._complete()
        finally:
            self._file.close()
        if kind is None:
            for future in self._pending:
                future.result()

    def write(self, first: int, tokens: torch.Tensor, foreground: torch.Tensor) -> None:
        """Have tokens [B, row, col, dim], on any device, and their foreground bool [B, row, col], on the CPU, written.

        They go to image ``first``; batches come in order.
        """
        while len(self._pending) >= PENDING:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._store, first, tokens, foreground))

    def finish(self, path: Path) -> None:
        """Give the complete file its digest and its name. Raises InputError where another process has replaced it."""
        if not self.path.is_file() or self.path.stat().st_ino != self._number:
            raise InputError(f"{self.path} was replaced by another process meanwhile: run again when that has ended.")
        store.seal(self.path, "embeddings")
        sync(self.path)
        self.path.replace(path)
        sync(path.parent)
        _progress_file(self.path).unlink(missing_ok=True)

    def _reserve(self, size: int) -> None:
        """Have room on the disk before HDF5 writes: it may crash on a disk that is full."""
        with full_disk_told(self.path), self.path.open("ab") as stream:
            require_space(self.path, size + BESIDE_IMAGES)
            os.posix_fallocate(stream.fileno(), 0, size)

    def _complete(self) -> None:
        """Write what is known of all images at the end: where it lies, the partial file stays as it was noted."""
        digests = b"".join(image.digest for image in self._written)
        self._file[store.IMAGE_DIGESTS][:] = np.frombuffer(digests, np.uint8).reshape(-1, store.DIGEST_BYTES)
        data = self._file[store.FOREGROUND]
        packed = np.frombuffer(b"".join(image.foreground for image in self._written), np.uint8)
        bits = np.unpackbits(packed.reshape(len(data), -1), axis=1, count=int(np.prod(data.shape[1:])))
        data[:] = bits.reshape(data.shape).astype(bool)

    def _note(self) -> None:
        """Note the images that were written since the last time, when they are on disk."""
        if self.done == self._noted:
            return
        self._file.flush()
        sync(self.path)
        first = _first_line(self.path, self.key, *store.place_of_images(self._file)) if self._noted == 0 else None
        _note_progress(self.path, first, self._written[self._noted :])
        self._noted, self._noted_at = self.done, time.monotonic()

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
            self._reserve(self.n_images * (half[0].nbytes + half[0, ..., 0].numel() + store.DIGEST_BYTES))
            _create_tokens(self._file, (self.n_images, *half.shape[1:]))
            self._file.attrs.update(self._attributes)
        data = self._file["tokens"]
        if tuple(half.shape[1:]) != data.shape[1:]:
            raise InputError(
                f"Image rows from {first} give a patch grid of {tuple(half.shape[1:3])}, the first image "
                f"{data.shape[1:3]}: all images of a data set need one shape (set `square: true` in the embedding)."
            )
        stored = half.cpu().numpy()
        written = self._digesting.map(Written.of, stored, foreground.numpy())  # begins now, beside the writing
        data[first : first + len(half)] = stored
        self._written += written
        if time.monotonic() - self._noted_at > SECONDS_BETWEEN_NOTES:
            self._note()
        self._failed = False


def _progress_file(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _finished_images(partial: Path, key: str, n_images: int, attributes: Mapping[str, Any]) -> list[Written]:
    """The images of an interrupted file from the same images, backbone and code; none at any doubt."""
    noted = _noted_images(partial, key)
    digests = [image.digest for image in noted]
    if noted and not partial.is_symlink() and _digests_in(partial, len(noted), n_images, attributes) == digests:
        logger.info("Resume %s after %d images.", partial.name, len(noted))
        return noted
    if partial.exists() or partial.is_symlink():
        logger.info("Start anew: %s is damaged, or was begun from other images, options or code.", partial.name)
    for left in (partial, _progress_file(partial)):
        _remove(left)
    return []


def _remove(left: Path) -> None:
    if left.is_dir() and not left.is_symlink():
        shutil.rmtree(left)
    else:
        left.unlink(missing_ok=True)


def _noted_images(partial: Path, key: str) -> list[Written]:
    """What was noted under ``key`` of the file as it is: digest and foreground in hexadecimal digits, one image a line.

    A last line that is not finished is left out.
    """
    try:
        first, *lines = _progress_file(partial).read_text(encoding="ascii").split("\n")
        start, stop = map(int, first.split(" ")[2:])
        same = first == _first_line(partial, key, start, stop)
        return [Written(*map(bytes.fromhex, line.split(" "))) for line in lines[:-1]] if same else []
    except (OSError, ValueError, TypeError):
        return []


def _digests_in(partial: Path, count: int, n_images: int, attributes: Mapping[str, Any]) -> list[bytes]:
    """Digests of the first images of an interrupted file; none where it cannot be read or says something else.

    Raises InputError while another process writes it.
    """
    try:
        with h5py.File(partial, "r") as file:
            said = {name: str(value) for name, value in file.attrs.items()}
            wanted = {name: str(value) for name, value in attributes.items()}
            if said != wanted or file[store.IMAGE_DIGESTS].shape[0] != n_images or len(file["tokens"]) != n_images:
                return []
            return [store.image_digest(file["tokens"][index]) for index in range(count)]
    except BlockingIOError as error:
        raise InputError(f"{partial} is being written by another process: wait for it, or end it.") from error
    except HDF5_ERRORS:
        return []


def _first_line(partial: Path, key: str, start: int, stop: int) -> str:
    """The key, and the digest of all but the images: HDF5 may not end on a file whose structure is damaged."""
    return f"{key} {store.bytes_digest(partial, start, stop, STRUCTURE)} {start} {stop}"


def _note_progress(partial: Path, first: str | None, images: Sequence[Written]) -> None:
    """Add images to what is noted; ``first``: the first line of a new note."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (os.O_TRUNC if first else os.O_APPEND)
    lines = [*filter(None, [first]), *(f"{image.digest.hex()} {image.foreground.hex()}" for image in images)]
    with open(os.open(_progress_file(partial), flags, 0o666), "w", encoding="ascii") as file:  # noqa: PTH123 (flags)
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())


def _create_tokens(file: h5py.File, shape: tuple[int, ...]) -> None:
    """Allocate the data sets, each in one piece: their place in the file does not depend on when they are filled."""
    for name, kind, size in (
        ("tokens", "float16", shape),
        (store.IMAGE_DIGESTS, "uint8", (shape[0], store.DIGEST_BYTES)),
        (store.FOREGROUND, "bool", shape[:3]),
    ):
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        layout.set_obj_track_times(False)
        stored = h5py.h5t.py_create(np.dtype(kind), logical=True)
        h5py.h5d.create(file.id, name.encode(), stored, h5py.h5s.create_simple(size), dcpl=layout)
