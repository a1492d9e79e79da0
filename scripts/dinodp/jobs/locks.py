"""One writer at a time: a lock file that goes with its process, however that ends."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dinodp.errors import InputError, told
from dinodp.jobs.logs import logger

NOT_SUPPORTED = {errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS}  # by some network file systems


@contextmanager
def exclusive(lock: Path, target: Path) -> Iterator[None]:
    """Hold the file ``lock`` while ``target`` is written; its folder is made, and goes again if nothing came into it.

    The lock is the kernel's (flock): that of a dead process is free. Raises InputError when another process holds it,
    or the file cannot be made.
    """
    made = not lock.parent.exists()
    with told(f"Nothing can be written into {lock.parent}", place=lock.parent):
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquired(lock, target)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)
        if made:
            with suppress(OSError):  # it is not empty
                lock.parent.rmdir()


def _acquired(lock: Path, target: Path) -> int:
    while True:
        # a link that someone has planted there is not followed
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            _lock(descriptor, target)
            if _is_still(lock, descriptor):  # else its last holder has just removed it
                os.truncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, target: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode("ascii", "replace")
        raise InputError(
            f"{target} is being written by another process ({holder or 'unknown'}): wait for it, or choose another "
            "name."
        ) from None
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        logger.warning("The file system of %s has no locks: let one process at a time write there.", target)


def _is_still(lock: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(lock.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
