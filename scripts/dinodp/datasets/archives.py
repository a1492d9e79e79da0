"""Fetch, verify and unpack the archive of a data set: resumed after interruptions, nothing half-done left behind."""

import errno
import hashlib
import http.client
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from dinodp.errors import InputError, one_line
from dinodp.jobs.files import replaced_folder, write_text
from dinodp.jobs.logs import logger, progress
from dinodp.options.archive import ArchiveOptions

CHUNK = 2**20
TIMEOUT_SECONDS = 60
MAX_EXPANSION = 200  # unpacked over packed size; PNGs hardly compress, so more is no image archive
BROKEN = (OSError, http.client.HTTPException)  # URLError and timeouts are OSErrors


def fetch_archive(name: str, options: ArchiveOptions, folder: Path) -> Path:
    """Make ``folder`` hold the unpacked archive of a catalog entry (keys: config/README.md), and return it.

    The packed file is kept beside it as the entry's ``file``; where it is there already it is only verified.
    Raises InputError when it cannot be had, has another checksum, does not fit on the disk or is unsafe to unpack.
    """
    packed = Path(options.file)
    if not packed.is_file():
        if options.url is None:
            raise InputError(f"Archive {name}: {options.instructions} Then put it at {packed} and run again.")
        require_accepted_licence(name, options)
        download(options.url, packed, size=options.size)
    verify_checksum(packed, options.sha256)
    unpack(packed, folder)
    return folder


def require_accepted_licence(name: str, options: ArchiveOptions) -> None:
    """Log the licences of what is about to be fetched. Raises InputError where they are not accepted."""
    if options.licence is None:
        return
    logger.info("Archive %s, %s: %s", name, options.url, options.licence)
    if not options.accept_licence:
        raise InputError(
            f"Archive {name}: {options.licence} To fetch {options.url} under these terms set "
            f"archives.{name}.accept_licence: true, or put your own copy at {options.file}."
        )


def download(url: str, path: Path, *, size: int | None = None, attempts: int = 5, wait_seconds: float = 2.0) -> None:
    """Download to ``path``; a broken connection is resumed where it broke, also by a later call.

    Raises InputError when the server refuses, the disk is too small, or every attempt broke off.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    for attempt in range(1, attempts + 1):
        try:
            _continue_download(url, partial, size)
            partial.replace(path)
            _tag_file(partial).unlink(missing_ok=True)
            return
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                partial.unlink(missing_ok=True)  # longer than what the server has: begin again
            elif error.code < 500:
                raise InputError(f"{url} answered {error.code} ({error.reason}): check the address.") from error
            reason = str(error)
        except InputError:
            raise
        except BROKEN as error:
            if _is_disk_error(error):
                raise InputError(f"{partial} could not be written ({error}); free some space and run again.") from error
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        logger.info("Attempt %d of %d for %s broke off (%s).", attempt, attempts, url, reason)
        time.sleep(wait_seconds * (attempt < attempts))
    have = partial.stat().st_size if partial.exists() else 0
    raise InputError(
        f"{url} could not be downloaded in {attempts} attempts ({reason}); {have} bytes are kept: "
        f"run again to continue, or fetch it another way and put it at {path}."
    )


def size_of(url: str) -> int | None:
    """Bytes at an address; None where the server does not say. Raises InputError where it does not answer."""
    request = urllib.request.Request(url, headers={"User-Agent": "dinodp"}, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            length = answer.headers.get("Content-Length")
    except BROKEN as error:
        raise InputError(f"{url} does not answer ({one_line(error)}): check the address and the network.") from error
    return int(length) if length else None


def partial_of(path: Path) -> Path:
    """Where what has come of a download is kept until it is whole."""
    return path.with_name(path.name + ".part")


def _is_disk_error(error: BaseException) -> bool:
    """Whether writing failed: disk full, quota, file too large."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def _tag_file(partial: Path) -> Path:
    """Where the server's name of the version of a partial file is kept."""
    return partial.with_name(partial.name + ".etag")


def _continue_download(url: str, partial: Path, size: int | None) -> None:
    """Fetch what is missing of ``partial``; from the start when the server has another version or cannot resume."""
    have, tag = (partial.stat().st_size if partial.exists() else 0), _tag_file(partial)
    headers = {"User-Agent": "dinodp"}
    if have and tag.exists():
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text(encoding="utf-8")}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        have = have if answer.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        missing = answer.length if answer.length is not None else (size or 0) - have
        require_space(partial.parent, missing, f"downloading {url}")
        write_text(tag, answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
        if not tag.stat().st_size:
            tag.unlink()
        with partial.open("ab" if have else "wb") as file:
            received = 0
            chunks = iter(lambda: answer.read(CHUNK), b"")
            for chunk in progress(chunks, "download", total=max(1, -(-missing // CHUNK)), unit="MiB"):
                received += file.write(chunk)
        if answer.length and received < missing:
            raise http.client.IncompleteRead(b"", missing - received)


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise InputError when the disk of ``folder`` has fewer than ``needed`` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder} has {free / 2**30:.2f} GiB left, but {purpose} needs {needed / 2**30:.2f} GiB more; "
            "free some space or set another folder."
        )


def verify_checksum(path: Path, sha256: str | None) -> None:
    """Raise InputError when the file has another sha256; without an expected one, log what it has."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is None:
        logger.info("%s has sha256 %s; the catalog names none to compare with.", path, found)
    elif found != sha256:
        raise InputError(f"{path} has sha256 {found}, expected {sha256}: it is damaged or another version; delete it.")


def unpack(packed: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into ``folder``, which appears only when all of it is there.

    Raises InputError for a damaged archive, members that leave the folder, links, or an absurd expansion.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replaced_folder(folder) as target:
            if zipfile.is_zipfile(packed):
                _unpack_zip(packed, target)
            elif tarfile.is_tarfile(packed):
                _unpack_tar(packed, target)
            else:
                raise InputError(f"{packed} is neither a zip nor a tar archive, or it is cut off.")
    except InputError:
        raise
    except Exception as error:  # each format and each compression has its own kinds for damage
        raise InputError(f"{packed} could not be unpacked into {folder}: {one_line(error)}.") from error


def _unpack_zip(packed: Path, target: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        links = (stat.S_ISLNK(member.external_attr >> 16) for member in members)
        _require_safe(packed, [member.filename for member in members], sum(m.file_size for m in members), any(links))
        for member in progress(members, "unpack", unit="file"):
            archive.extract(member, target)


def _unpack_tar(packed: Path, target: Path) -> None:
    with tarfile.open(packed) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
        special = any(not member.isfile() for member in members)
        _require_safe(packed, [member.name for member in members], sum(m.size for m in members), special)
        for member in progress(members, "unpack", unit="file"):
            # Content only: no owner, mode or time. Not extract(filter="data"), which Debian's Python 3.11.2 lacks.
            path = target / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with cast("IO[bytes]", archive.extractfile(member)) as source, path.open("wb") as file:
                shutil.copyfileobj(source, file)


def _require_safe(packed: Path, names: list[str], size: int, special: bool) -> None:
    """Raise InputError before anything is written."""
    if unsafe := next(_leaving(names), None):
        raise InputError(f"{packed} holds the member {unsafe!r}, which would leave the target folder: it is refused.")
    if special:
        raise InputError(f"{packed} holds links or special files: it is refused.")
    if size > MAX_EXPANSION * packed.stat().st_size:
        raise InputError(
            f"{packed} would grow from {packed.stat().st_size} to {size} bytes, "
            f"more than {MAX_EXPANSION}-fold: it is refused."
        )
    require_space(packed.parent, size, f"unpacking {packed}")


def _leaving(names: list[str]) -> Iterator[str]:
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            yield name
