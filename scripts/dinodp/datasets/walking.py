"""One walk of a folder, for pipeline and `dinodp`: which files count, once each, and what is left out, said once."""

import hashlib
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from typing import BinaryIO

from dinodp.errors import InputError, visible
from dinodp.jobs.files import FOLDER_LOCK, LEFT, ORIGIN_SUFFIX, RECORD, UNFINISHED
from dinodp.jobs.logs import logger

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
VOLUME_SUFFIXES = (".nii.gz", ".nii")
LITTER = {  # of operating systems and storage, in lower case; what begins with a dot is hidden anyway
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "#recycle", "$recycle.bin",
    "system volume information", "lost+found",
}  # fmt: skip
LINK_AGAIN = "link to what is there already"
LINK_DEAD = "link without a target"
UNREADABLE = "folder that cannot be opened"
OWN_OUTPUT = "folder that dinodp wrote"
OTHER_FORMAT = "file of another format"
SUBFOLDER = "subfolder"
COPY = "copy of another file"
CHUNK = 2**20  # bytes


@dataclass
class Found:
    """Files below a ``root``, sorted by path, and what is ``left`` out, by what it is."""

    root: Path
    files: list[Path] = field(default_factory=list)
    left: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))

    def ending(self, suffixes: Sequence[str]) -> "Found":
        """Only files whose names end so, in any case."""
        return self.where(lambda path: has_suffix(path, suffixes), OTHER_FORMAT)

    def where(self, holds: Callable[[Path], bool], otherwise: str) -> "Found":
        """Only files for which something holds; the others are left out as ``otherwise``."""
        kept: list[Path] = []
        for path in self.files:
            (kept if holds(path) else self.left[otherwise]).append(path)
        self.files = kept
        return self

    def say(self) -> list[Path]:
        """The files; logs what is left out, once, with counts and an example of each kind."""
        if said := self.left_in_words():
            logger.warning("%s: left out are %s.", self.root, said)
        return self.files

    def left_in_words(self) -> str:
        """What is left out, with counts and an example of each kind; empty where nothing is."""
        return "; ".join(
            f"{counted(len(paths), kind)} (such as {visible(shown_below(paths[0], self.root))})"
            for kind, paths in self.left.items()
            if paths
        )


def counted(count: int, what: str) -> str:
    """A count of things: the first word is the one that has a plural."""
    first, _, rest = what.partition(" ")
    return f"{count} {first if count == 1 else 'copies' if first == 'copy' else first + 's'} {rest}".rstrip()


def shown_below(path: Path, root: Path) -> str:
    """A path as it is called below ``root``."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def has_suffix(path: Path, suffixes: Sequence[str]) -> bool:
    """Whether a name ends in one of these suffixes, in any case."""
    return path.name.lower().endswith(tuple(suffixes))


def stem_of(name: str) -> str:
    """The name without its suffix, which may be ``.nii.gz``."""
    end = next((end for end in (*VOLUME_SUFFIXES, *IMAGE_SUFFIXES) if name.lower().endswith(end)), "")
    return name[: len(name) - len(end)]


def is_passed_over(name: str) -> bool:
    """Whether files and folders of this name are hidden, an operating system's, or half written."""
    if name.startswith("part."):
        return LEFT.fullmatch(name) is not None
    return name.startswith(".") or name.lower() in LITTER


def files_in(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> Found:
    """The files directly in a folder that end so. Raises InputError for two that differ in the suffix only."""
    found = walk(folder, deep=False).ending(suffixes)
    by_stem: dict[str, Path] = {}
    for path in found.files:
        if (other := by_stem.setdefault(stem_of(path.name), path)) is not path:
            raise InputError(
                f"{other} and {path.name} differ in their suffix only: is it one picture, saved twice? Keep one of "
                "them, or give them different names."
            )
    return found


def folders_in(folder: Path) -> list[Path]:
    """The folders directly in a folder that count, by name, each once however many links lead to it."""
    found = walk(folder, deep=False).left[SUBFOLDER]
    real = sorted(found, key=lambda path: (path.is_symlink(), path.name))
    first = {(status.st_dev, status.st_ino): path for path in reversed(real) for status in [path.stat()]}
    for path in sorted(set(found) - set(first.values())):
        logger.warning("%s is left out: it is a link to a folder beside it.", path)
    return sorted(first.values())


def say_beside(root: Path, names: Iterable[str]) -> None:
    """Log which folders directly in ``root`` are not among those that are read."""
    known = sorted(names)
    if others := [path.name for path in folders_in(root) if path.name not in known]:
        logger.warning(
            "%s: left out are %s (such as %s); read are %s.",
            root, counted(len(others), "folder"), visible(others[0]), ", ".join(known),
        )  # fmt: skip


def require_folder(folder: Path, hint: str) -> None:
    """Raise InputError where there is no such folder, or it cannot be opened; ``hint``: the rest of the sentence."""
    if not folder.is_dir():
        there = ", ".join(path.name for path in folders_in(folder.parent)[:10]) if folder.parent.is_dir() else ""
        raise InputError(f"there is no folder {folder}{hint}." + (f" Beside it: {there}." if there else ""))


def walk(root: Path, *, deep: bool = True) -> Found:
    """The files below ``root`` (``deep=False``: directly in it) that count.

    Passed over is what is hidden, an operating system's, half written, or in a folder that dinodp wrote; the root
    itself may be any of it. Links are followed after everything that they could repeat, each file and folder once.
    Raises InputError where the root cannot be opened.
    """
    try:
        return _Walk(Path(root), deep).found
    except OSError as error:
        raise InputError(f"The folder {root} cannot be opened ({error.strerror}).") from error


class _Walk:
    """One walk; ``seen``: device and inode of each file and folder that was met."""

    def __init__(self, root: Path, deep: bool) -> None:
        self.found, self.deep = Found(root), deep
        self.seen: set[tuple[int, int]] = set()
        self.links: list[Path] = []
        self._folder(root, root.stat())
        for link in self.links:  # grows while links lead to folders with links
            self._link(link)
        self.found.files.sort()

    def _folder(self, folder: Path, status: os.stat_result) -> None:
        pending = [(folder, status)]
        while pending:
            place, status = pending.pop()
            if not self._is_new(place, status):
                continue
            for entry in self._entries(place):
                if entry.is_symlink():
                    self.links.append(place / entry.name)
                elif entry.is_dir():
                    self._inner(place / entry.name, entry.stat(), pending)
                elif entry.is_file() and self._is_new(place / entry.name, entry.stat()):
                    self.found.files.append(place / entry.name)

    def _inner(self, folder: Path, status: os.stat_result, pending: list[tuple[Path, os.stat_result]]) -> None:
        if self.deep:
            pending.append((folder, status))
        else:
            self.found.left[SUBFOLDER].append(folder)

    def _link(self, link: Path) -> None:
        try:
            status = link.stat()
        except OSError:  # also a link to itself
            self.found.left[LINK_DEAD].append(link)
            return
        if link.is_dir():
            if self.deep:
                self._folder(link, status)
            else:
                self.found.left[SUBFOLDER].append(link)
        elif link.is_file() and self._is_new(link, status):
            self.found.files.append(link)

    def _is_new(self, path: Path, status: os.stat_result) -> bool:
        known = (status.st_dev, status.st_ino)
        if known in self.seen:
            self.found.left[LINK_AGAIN].append(path)
            return False
        self.seen.add(known)
        return True

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """What counts in a folder, by name; nothing of one that dinodp wrote."""
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            if folder == self.found.root:
                raise
            self.found.left[UNREADABLE].append(folder)
            return []
        if folder != self.found.root and any(map(_is_mark, listed)):
            self.found.left[OWN_OUTPUT].append(folder)
            return []
        return [entry for entry in listed if not is_passed_over(entry.name)]


def _is_mark(entry: os.DirEntry[str]) -> bool:
    """Whether an entry tells that dinodp wrote its folder, or is writing it."""
    return entry.name in (RECORD, FOLDER_LOCK, UNFINISHED) or entry.name.endswith(ORIGIN_SUFFIX)


def copies(paths: Iterable[Path]) -> dict[Path, Path]:
    """Files with the bytes of an earlier one, and that one. Of ``.gz``, the bytes that are packed in it.

    Sizes and checksums come first, so that few files are read twice.
    """
    groups = [list(paths)]
    for key in (_packed_size, _checksum, _digest):
        groups = [group for found in groups for group in _alike(found, key)]
    return {path: group[0] for group in groups for path in group[1:]}


def _alike(paths: Sequence[Path], key: Callable[[Path], Hashable]) -> Iterator[list[Path]]:
    """Groups of at least two files with one key."""
    groups: dict[Hashable, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            groups[key(path)].append(path)
        except (OSError, EOFError, BadGzipFile, zlib.error):  # damaged: its reader tells so
            continue
    return (group for group in groups.values() if len(group) > 1)


def _packed_size(path: Path) -> int:
    """Bytes of the content; of ``.gz`` as its last four bytes tell, which are all that are read."""
    if not _is_packed(path):
        return path.stat().st_size % 2**32
    return int.from_bytes(_trailer(path)[4:], "little")


def _checksum(path: Path) -> int:
    """CRC-32 of the content; of ``.gz`` as its trailer tells."""
    if _is_packed(path):
        return int.from_bytes(_trailer(path)[:4], "little")
    with path.open("rb") as stream:
        checksum = 0
        for chunk in _chunks(stream):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as raw, GzipFile(fileobj=raw) if _is_packed(path) else raw as stream:
        for chunk in _chunks(stream):  # type: ignore[arg-type]
            digest.update(chunk)
    return digest.digest()


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: stream.read(CHUNK), b"")


def _trailer(path: Path) -> bytes:
    """Checksum and size of what is packed in a ``.gz`` (RFC 1952), 8 bytes."""
    with path.open("rb") as stream:
        stream.seek(-8, os.SEEK_END)
        return stream.read(8)


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def listing(places: Iterable[str], suffixes: tuple[str, ...] = (), without: str | None = None) -> str:
    """A digest of names, sizes and times of change of all files at and below places: another one when they change.

    It reads no file. ``suffixes``: of the files that count; none: all. ``without``: a folder that is left out, such as
    the one that results go to.
    """
    given = [Path(place) for place in places]
    folders = [path.stat() for path in (*given, *([Path(without)] if without else [])) if path.is_dir()]
    seen = {(status.st_dev, status.st_ino) for status in folders}
    lines = [line for path in given for line in _lines(str(path.absolute()), suffixes, seen)]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _lines(place: str, suffixes: tuple[str, ...], seen: set[tuple[int, int]]) -> list[str]:
    """One line per file and folder; strings and `scandir`, as there may be ten thousands at each start of Snakemake."""
    lines: list[str] = []
    pending = [place]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                listed = list(entries)
        except NotADirectoryError:
            lines.append(_line(folder, Path(folder).stat()))
            continue
        except OSError:  # its reader tells so
            continue
        if folder != place and any(map(_is_mark, listed)):
            continue
        here = []
        for entry in listed:
            if is_passed_over(entry.name):
                continue
            try:
                if entry.is_dir():
                    pending += _unseen(entry, seen)
                elif not suffixes or entry.name.lower().endswith(suffixes):
                    here.append(_line(entry.name, entry.stat()))
            except OSError:  # a link that leads nowhere
                here.append(entry.name)
        lines += [folder[len(place) :], *sorted(here)]
        pending.sort()
    return lines


def _line(name: str, status: os.stat_result) -> str:
    return f"{name}\0{status.st_size}\0{status.st_mtime_ns}"


def _unseen(entry: os.DirEntry[str], seen: set[tuple[int, int]]) -> list[str]:
    """The folder, unless it was listed before or is left out."""
    status = entry.stat()
    known = (status.st_dev, status.st_ino)
    if known in seen:
        return []
    seen.add(known)
    return [entry.path]
