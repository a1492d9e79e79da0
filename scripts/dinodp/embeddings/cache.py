"""Keep the patch embeddings of a split in memory or on a local disk, where its file system is slow."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from dinodp import store
from dinodp.errors import InputError
from dinodp.jobs.files import replaced_file
from dinodp.jobs.logs import logger
from dinodp.jobs.origin import AGAIN

IMAGES_PER_COPY = 64
Tokens = npt.NDArray[np.float16]


class TokenRows:
    """Some images of an embeddings file, by their number among ``rows``, from where ``cache`` says.

    ``cache`` is ``none``, ``memory`` (the images are read once), or a folder on a local disk to which the file is
    copied unless its copy is there; environment variables in it are replaced (``$TMPDIR``). ``digests`` uint8
    [image, 32] of all images of the file (default: those that it holds): each image is compared with its own when it
    is first read. Nothing happens before the first read.
    """

    def __init__(
        self, path: Path, rows: Sequence[int], cache: str = "none", digests: npt.NDArray[np.uint8] | None = None
    ) -> None:
        self.path, self.rows, self.cache, self._given = path, list(rows), cache, digests
        self._whole: set[int] = set()

    def read(self, indices: Sequence[int]) -> Tokens:
        """Return float16 [len(indices), row, col, dim]. Raises InputError where one of them is damaged."""
        if self.cache == "memory":
            return self._held[list(indices)]
        return self._read([self.rows[index] for index in indices])

    @cached_property
    def _digests(self) -> npt.NDArray[np.uint8]:
        if self._given is not None:
            return self._given
        with store.reading(self.path, "embeddings") as file:
            return store.image_digests(file)

    @cached_property
    def _file(self) -> h5py.File:
        place = self.path if self.cache in ("none", "memory") else local_copy(self.path, self.cache)
        try:
            return _open(place)
        except InputError as error:
            if place == self.path:
                raise
            return self._instead_of(place, error)

    @cached_property
    def _held(self) -> Tokens:
        return self._read(self.rows)

    def _read(self, rows: Sequence[int]) -> Tokens:
        try:
            return self._checked(rows)
        except InputError as error:
            place = Path(self._file.filename)
            if place == self.path:
                raise
            self._file.close()
            self._file = self._instead_of(place, error)
        return self._checked(rows)

    def _instead_of(self, copy: Path, error: InputError) -> h5py.File:
        """The file itself, where its copy is damaged."""
        logger.warning("The copy is dropped and %s read instead: %s", self.path, error)
        copy.unlink(missing_ok=True)
        return _open(self.path)

    def _checked(self, rows: Sequence[int]) -> Tokens:
        place = Path(self._file.filename)
        with store.hdf5_errors(place):
            tokens = self._file["tokens"]
            out = np.empty((len(rows), *tokens.shape[1:]), dtype=np.float16)
            for position, row in enumerate(rows):
                tokens.read_direct(out, np.s_[row], np.s_[position])
        for position, row in enumerate(rows):
            if row not in self._whole and store.image_digest(out[position]) != self._digests[row].tobytes():
                raise InputError(f"The embeddings of image {row} in {place} are not as they were written: {AGAIN}.")
            self._whole.add(row)
        return out


def _open(path: Path) -> h5py.File:
    store.require_whole(path)
    with store.hdf5_errors(path):
        return h5py.File(path, "r")


def local_copy(path: Path, cache: str) -> Path:
    """The copy of an embeddings file in the folder ``cache``, made if need be; ``path`` itself where space is short.

    A copy is named by the digest of what it copies. Raises InputError when the folder names an environment variable
    that is not set, or cannot be made.
    """
    folder = Path(os.path.expandvars(cache)).expanduser()
    if "$" in str(folder):
        raise InputError(f"The cache {cache!r} names an environment variable that is not set on this machine.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The cache folder {folder} cannot be made ({error.strerror}): name a local disk.") from error
    name, version = _digest(str(path.resolve())), store.digest_of(path)[:16]
    copy = folder / f"dinodp-{name}-{version}.h5"
    try:
        with _locked(folder / f"dinodp-{name}.lock"):  # one job copies, others of this machine wait for it
            if copy.is_file() and not copy.is_symlink():
                return copy
            for outdated in folder.glob(f"*dinodp-{name}-*"):  # who reads it now keeps it until the end
                outdated.unlink()
            return copy if _copied(path, copy) else path
    except (OSError, InputError) as error:
        logger.warning("No copy of %s in %s (%s).", path, folder, error)
        return path


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Hold a lock file, which no link leads to."""
    number = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _copied(path: Path, copy: Path) -> bool:
    """Copy the images alone, through HDF5, so that what is gathered from several files becomes one."""
    with h5py.File(path, "r") as source:
        tokens = source["tokens"]
        needed, free = tokens.size * 2, shutil.disk_usage(copy.parent).free
        if needed > free:
            logger.warning("No copy of %s in %s: %d MiB are free.", path, copy.parent, free // 2**20)
            return False
        with replaced_file(copy, synced=False) as temporary:
            with h5py.File(temporary, "w", userblock_size=store.HEAD_BYTES) as target:
                data = target.create_dataset("tokens", tokens.shape, "float16")
                for first in range(0, len(tokens), IMAGES_PER_COPY):
                    data[first : first + IMAGES_PER_COPY] = tokens[first : first + IMAGES_PER_COPY]
                store.write_image_digests(target, [digest.tobytes() for digest in store.image_digests(source)])
            store.seal(temporary, store.LARGE)
    logger.info("Copied %s to %s (%d MiB).", path, copy, needed // 2**20)
    return True
