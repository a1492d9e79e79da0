"""Keep the patch embeddings of a split in memory or on a local disk, where its file system is slow."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from dinodp.errors import InputError
from dinodp.jobs.files import replaced_file
from dinodp.jobs.logs import logger

IMAGES_PER_COPY = 64
Tokens = npt.NDArray[np.float16]


class TokenRows:
    """Some images of an embeddings file, by their number among ``rows``, from where ``cache`` says.

    ``cache`` is ``none``, ``memory`` (the images are read once), or a folder on a local disk to which the file is
    copied unless its copy is there; environment variables in it are replaced (``$TMPDIR``). Nothing happens before the
    first read.
    """

    def __init__(self, path: Path, rows: Sequence[int], cache: str = "none") -> None:
        self.path, self.rows, self.cache = path, list(rows), cache

    def read(self, indices: Sequence[int]) -> Tokens:
        """Return float16 [len(indices), row, col, dim]."""
        if self.cache == "memory":
            return self._held[list(indices)]
        return self._read([self.rows[index] for index in indices])

    @cached_property
    def _file(self) -> h5py.File:
        return h5py.File(self.path if self.cache in ("none", "memory") else local_copy(self.path, self.cache), "r")

    @cached_property
    def _held(self) -> Tokens:
        return self._read(self.rows)

    def _read(self, rows: Sequence[int]) -> Tokens:
        tokens = self._file["tokens"]
        out = np.empty((len(rows), *tokens.shape[1:]), dtype=np.float16)
        for position, row in enumerate(rows):
            tokens.read_direct(out, np.s_[row], np.s_[position])
        return out


def local_copy(path: Path, cache: str) -> Path:
    """The copy of an embeddings file in the folder ``cache``, made if need be; ``path`` itself where space is short.

    Raises InputError when the folder names an environment variable that is not set, or cannot be made.
    """
    folder = Path(os.path.expandvars(cache)).expanduser()
    if "$" in str(folder):
        raise InputError(f"The cache {cache!r} names an environment variable that is not set on this machine.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The cache folder {folder} cannot be made ({error.strerror}): name a local disk.") from error
    state = path.stat()
    name, version = _digest(str(path.resolve())), _digest(f"{state.st_mtime_ns} {state.st_size}")
    copy = folder / f"dinodp-{name}-{version}.h5"
    try:
        with (folder / f"dinodp-{name}.lock").open("a") as lock:  # one job copies, others of this machine wait for it
            fcntl.flock(lock, fcntl.LOCK_EX)
            if copy.is_file():
                return copy
            for outdated in folder.glob(f"*dinodp-{name}-*"):  # who reads it now keeps it until the end
                outdated.unlink()
            return copy if _copied(path, copy) else path
    except OSError as error:
        logger.warning("No copy of %s in %s (%s).", path, folder, error)
        return path


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _copied(path: Path, copy: Path) -> bool:
    """Copy the tokens alone, through HDF5, so that what is gathered from several files becomes one."""
    with h5py.File(path, "r") as source:
        tokens = source["tokens"]
        needed, free = tokens.size * 2, shutil.disk_usage(copy.parent).free
        if needed > free:
            logger.warning("No copy of %s in %s: %d MiB are free.", path, copy.parent, free // 2**20)
            return False
        with replaced_file(copy) as temporary, h5py.File(temporary, "w") as target:
            data = target.create_dataset("tokens", tokens.shape, "float16", chunks=(1, *tokens.shape[1:]))
            for first in range(0, len(tokens), IMAGES_PER_COPY):
                data[first : first + IMAGES_PER_COPY] = tokens[first : first + IMAGES_PER_COPY]
    logger.info("Copied %s to %s (%d MiB).", path, copy, needed // 2**20)
    return True
