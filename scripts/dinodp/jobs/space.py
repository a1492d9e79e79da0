"""A full disk, told in one sentence."""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dinodp.errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
IN_WORDS = re.compile(rf"errno = ({'|'.join(map(str, FULL))})\b|inline_container.*unexpected pos")  # HDF5, PyTorch


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Raise InputError, with what is free, where ``path`` cannot be written in the block as its disk is full."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not _is_full(error):
            raise
        free = shutil.disk_usage(path.parent).free / 2**20
        raise InputError(
            f"{path} cannot be written: the disk or the quota is full ({free:.0f} MiB are free on the disk); free some "
            "space and run again."
        ) from error


def _is_full(error: BaseException) -> bool:
    return getattr(error, "errno", None) in FULL or IN_WORDS.search(str(error)) is not None
