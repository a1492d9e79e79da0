"""What happens to a file between two jobs."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

BLOCK = 512  # bytes


def cut(path: Path, other: Path, draw: random.Random) -> None:
    """The first half is left."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flipped(path: Path, other: Path, draw: random.Random) -> None:
    """One bit."""
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def zeroed(path: Path, other: Path, draw: random.Random) -> None:
    """A block of zeros where there were other bytes."""
    data = bytearray(path.read_bytes())
    starts = [start for start in range(0, len(data), BLOCK) if any(data[start : start + BLOCK])]
    start = draw.choice(starts)
    stop = min(len(data), start + BLOCK)
    data[start:stop] = bytes(stop - start)
    path.write_bytes(data)


def emptied(path: Path, other: Path, draw: random.Random) -> None:
    """No byte is left."""
    path.write_bytes(b"")


def replaced(path: Path, other: Path, draw: random.Random) -> None:
    """The file of the same name of another run."""
    shutil.copyfile(other, path)


def deleted(path: Path, other: Path, draw: random.Random) -> None:
    """It is gone."""
    path.unlink()


DAMAGES = {
    "cut": cut,
    "bit flipped": flipped,
    "512 zeroed": zeroed,
    "emptied": emptied,
    "other run's": replaced,
    "deleted": deleted,
}  # fmt: skip


class Damaged:
    """A file while it is damaged; as it was, also in its time, at the end.

    ``keep_time``: the damage does not change its time.
    """

    def __init__(
        self, path: Path, damage: Callable[..., None], other: Path, draw: random.Random, keep_time: bool
    ) -> None:
        self.path, self.damage, self.other, self.draw, self.keep_time = path, damage, other, draw, keep_time

    def __enter__(self) -> None:
        self.data, self.made = self.path.read_bytes(), self.path.stat()
        self.damage(self.path, self.other, self.draw)
        if self.keep_time and self.path.exists():
            self._restore_time()

    def __exit__(self, *_: object) -> None:
        self.path.write_bytes(self.data)
        self._restore_time()

    def _restore_time(self) -> None:
        os.utime(self.path, ns=(self.made.st_atime_ns, self.made.st_mtime_ns))
