"""Write files and folders so that each is complete or absent, and on disk before it takes its name."""

import json
import os
import re
import secrets
import shutil
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dinodp.errors import InputError, full_disk_told, one_line

RECORD = "predictions.json"  # in a folder that `dinodp predict` wrote
UNFINISHED = ".dinodp.unfinished"  # folder in it that says what is done so far
FOLDER_LOCK = ".dinodp.lock"  # in one that it is writing, or was writing when it was killed
ORIGIN_SUFFIX = ".origin.json"  # of what lies beside a CSV table (`dinodp.jobs.origin`)
LEFT = re.compile(r"part\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\..*")  # machine, process, chance
SECONDS_PER_DAY = 24 * 60 * 60
NAME_KEPT = 60  # characters at the end of a name, with its suffixes: names have at most 255 bytes


def user_path(path: str | Path) -> Path:
    """A path as a shell would have it: ~ is the home folder, also in --out=~/maps and in a configuration."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~ of a user that there is not
        return Path(path)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` under a temporary name, then rename it to ``path``; names of files that are not UTF-8 keep their
    bytes."""
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON with sorted keys, so that equal content gives equal bytes."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises InputError, which names the file, where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({one_line(error)}): delete it and run again.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not valid JSON of a result (it holds no object): delete it and run again.")
    return content


@contextmanager
def replaced_file(path: Path, synced: bool = True) -> Iterator[Path]:
    """A temporary file beside ``path``, with its suffixes, that takes its name at the end, or vanishes on an error.

    Its name is of this process alone and it is made by it, so that no link that lies in wait is followed. What
    processes that are gone have left is cleared. ``synced``: it is on disk before it takes the name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_left(path)
    temporary = _own_name(path)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o666))
    try:
        with full_disk_told(path):
            yield temporary
            if synced:
                sync(temporary)
            temporary.replace(path)
            if synced:
                sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its place at the end, or vanishes when the block raises."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clear_left(folder)
    temporary, former = _own_name(folder), _own_name(folder)
    temporary.mkdir()
    try:
        with full_disk_told(folder):
            yield temporary
            os.sync()  # once, for what may be thousands of files
            if folder.exists():
                folder.replace(former)
            temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk when this returns."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _own_name(path: Path) -> Path:
    return path.with_name(f"part.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.{path.name[-NAME_KEPT:]}")


def _machine() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _clear_left(path: Path) -> None:
    """Remove temporary files and folders for ``path`` of processes that have ended."""
    with os.scandir(path.parent) as entries:
        names = [entry.name for entry in entries if entry.name.startswith("part.")]
    for name in names:
        if name.endswith("." + path.name[-NAME_KEPT:]) and _is_left(path.with_name(name)):
            remove(path.with_name(name))


def clear_left(folder: Path) -> None:
    """Remove all temporary files and folders in ``folder`` of processes that have ended."""
    if folder.is_dir():
        for path in folder.glob("part.*"):
            if _is_left(path):
                remove(path)


def _is_left(path: Path) -> bool:
    """Whether its process has ended: of this machine by its number, of another one by a day without a change."""
    found = LEFT.fullmatch(path.name)
    if found is None:
        return False
    if found[1] == _machine():
        return not _is_running(int(found[2]))
    try:
        return time.time() - path.lstat().st_mtime > SECONDS_PER_DAY
    except OSError:
        return False


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, where that is allowed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:  # another user's
        return
