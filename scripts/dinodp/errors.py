"""The one exception that means: the input is at fault, not the program. And texts of others, shown without harm."""

import errno
import math
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # categories: control, direction-changing, not UTF-8, ends of lines
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FULL_IN_WORDS = re.compile(rf"errno = ({'|'.join(map(str, sorted(FULL)))})\b|inline_container.*unexpected pos")
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError)  # of h5py
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")  # of CUDA's calls, and on a CPU
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


class InputError(ValueError):
    """A user's mistake, told in one sentence: what was given, what is allowed, where.

    Scripts and the command line print the sentence without a traceback and exit with status 1.
    """


class NothingToShow(InputError):
    """What a table or a figure would show is not in this run: it is left out, and the sentence stands in its place."""


def one_line(error: Exception) -> str:
    """What an exception of another library says, on one line and without a full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def visible(text: str) -> str:
    """``text`` with what is not seen, or changes how the rest is seen, written as escapes; a lone byte as ``\\xff``."""
    if text.isprintable():
        return text
    return "".join(_escaped(letter) if unicodedata.category(letter) in HIDDEN else letter for letter in text)


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # Python's stand-in for a byte of a file's name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")


@contextmanager
def told(what: str, *kinds: type[Exception], place: Path | None = None) -> Iterator[None]:
    """An exception of one of the ``kinds`` (OSError is always one) becomes an InputError that begins with ``what``.

    ``what`` names the file and what was done with it: "The model m.h5 cannot be written"; ``place`` is where, for
    an OSError that names no file.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not isinstance(error, (OSError, *kinds)):
            raise
        raise InputError(f"{what} ({reason_of(error, place)}).") from error


@contextmanager
def hdf5_errors(path: Path, cure: str = "") -> Iterator[None]:
    """Tell what HDF5 raises in the block, which reads ``path`` and does nothing else, in one sentence."""
    try:
        yield
    except InputError:
        raise
    except HDF5_ERRORS as error:
        said = f"{path} is not a readable HDF5 file, it is damaged ({one_line(error)})"
        raise InputError(f"{said}{cure and ': '}{cure}.") from error


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Raise InputError, with what is free, where ``path`` cannot be written in the block as its disk is full."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not is_full(error):
            raise
        raise _full_disk(path, "the disk or the quota is full") from error


def require_space(path: Path, size: int) -> None:
    """Raise InputError where a file of ``size`` bytes has no room on the disk that ``path`` lies on."""
    if size > shutil.disk_usage(_existing(path) or path.parent).free:
        raise _full_disk(path, f"it takes {size / 2**20:.1f} MiB")


def _full_disk(path: Path, why: str) -> InputError:
    return InputError(f"{path} cannot be written: {why}{_free(path)}; free some space and run again.")


def is_full(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, says that a disk or a quota is full."""
    if getattr(error, "errno", None) in FULL or FULL_IN_WORDS.search(str(error)):
        return True
    return error.__cause__ is not None and is_full(error.__cause__)


def reason_of(error: Exception, place: Path | None = None) -> str:
    """Why something failed: kind and words of the error, or file and reason of what the system refused.

    Of a full disk it says how much is free, of a forbidden place whose it is. ``place``: where, for an OSError that
    names no file.
    """
    if not isinstance(error, OSError):
        full = f"{os.strerror(errno.ENOSPC)}{_free(place)}"
        return full if is_full(error) else f"{type(error).__name__}: {one_line(error)}"
    name = error.filename2 or error.filename  # the second one is the target of a renaming
    named = f"{os.fsdecode(name)}: " if isinstance(name, str | bytes) else ""
    file = Path(os.fsdecode(name)) if named else place
    if is_full(error):
        return f"{named}{os.strerror(error.errno or errno.ENOSPC)}{_free(file)}"
    reason = error.strerror or one_line(error)
    return f"{named}{reason}{_owner(file) if error.errno in FORBIDDEN else ''}"


def _existing(file: Path | None) -> Path | None:
    """The file, or the folder of it that there is."""
    while file is not None and not file.exists() and file != file.parent:
        file = file.parent
    return file


def _free(file: Path | None) -> str:
    place = _existing(file)
    return "" if place is None else f"; {shutil.disk_usage(place).free / 2**20:.1f} MiB are free on its file system"


def _owner(file: Path | None) -> str:
    place = _existing(file)
    if place is None:
        return ""
    try:
        return f"; {visible(str(place))} belongs to {place.owner()}"
    except (KeyError, OSError):  # a user of another machine
        return f"; {visible(str(place))} belongs to the user {place.stat().st_uid}"


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine, or of its GPU, does not suffice."""
    said = isinstance(error, RuntimeError) and any(text in str(error).lower() for text in OUT_OF_MEMORY)
    return said or isinstance(error, MemoryError)


def memory_sentence(error: BaseException) -> str:
    """What to tell of an error that `ran_out_of_memory`: whose memory it is, and what asks for less."""
    first = str(error).partition(". ")[0]
    if "cuda" in first.lower() or "xpu" in first.lower():
        return (
            f"The memory of the GPU does not suffice ({' '.join(first.split())}): end what else holds it, compute on "
            "the CPU (--device cpu, run.device: cpu), or ask for a lower resolution, fewer components or a lower "
            "bank_memory_gib."
        )
    return "The memory of this machine does not suffice: give smaller scans, or a lower resolution."


def require_finite(name: str, *values: float) -> None:
    """Raise InputError when one of ``values`` is NaN or infinite."""
    for value in values:
        if not math.isfinite(value):
            raise InputError(f"{name} is {value}; it must be a finite number.")


def require_known(kind: str, name: object, allowed: object) -> None:
    """Raise InputError unless ``name`` is one of ``allowed`` (an iterable of names)."""
    names = [str(item) for item in allowed]  # type: ignore[attr-defined]
    if str(name) not in names:
        raise InputError(f"Unknown {kind} {name!r}: choose one of {', '.join(sorted(names))}.")
