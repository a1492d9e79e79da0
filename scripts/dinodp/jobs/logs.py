"""Logging and progress: a bar on a terminal, plain lines in a log file."""

import io
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from dinodp.errors import InputError, memory_sentence, one_line, ran_out_of_memory, reason_of, visible
from dinodp.jobs.asked import ask
from dinodp.jobs.closure import CACHE, LIBRARY, Closures

Item = TypeVar("Item")
logger = logging.getLogger("dinodp")
SECONDS_BETWEEN_LINES = 10.0


def configure_logging(level: int = logging.INFO) -> None:
    """Send the library's messages to standard error, one line each, with the time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_VisibleFormatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("matplotlib", "PIL", "h5py", "httpx", "urllib3", "faiss"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


_said: set[str] = set()


def warn_once(kind: str, sentence: str) -> None:
    """Log a sentence, the first of its kind only: what is so of one of thousands of files is mostly so of all."""
    if kind not in _said:
        _said.add(kind)
        logger.warning("%s", sentence)


@contextmanager
def quiet_hdf5() -> Iterator[None]:
    """Without the tracebacks that h5py prints when it lets go of a file that a full disk did not take: the error that
    came before tells it."""
    hook, unraisable = sys.excepthook, sys.unraisablehook
    sys.excepthook = lambda kind, error, trace: None if "ref count" in str(error) else hook(kind, error, trace)
    sys.unraisablehook = lambda found: None if "ref count" in str(found.exc_value) else unraisable(found)
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook = hook, unraisable


class _VisibleFormatter(logging.Formatter):
    """Lines in which the name of a file cannot move the cursor or turn the direction of what follows."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return visible(super().formatMessage(record))


def keep_traceback(error: BaseException) -> str:
    """Write the traceback of an error into the log of a job, else a file of its own; returns where, for a sentence."""
    text = "".join(traceback.format_exception(error))
    if isinstance(sys.stderr, _Tee):
        sys.stderr.log.write(text)
        return f"in {sys.stderr.log.name}"
    try:
        descriptor, name = tempfile.mkstemp(prefix="dinodp-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:  # the disk may be full
        print(text, file=sys.stderr)
        return "above"
    return f"in {name}"


@contextmanager
def reading_of(path: Path) -> Iterator[None]:
    """Whatever a reader raises becomes one sentence that names the file; the traceback of the unexpected is kept."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read ({reason_of(error, path)}).") from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit into memory.") from error
    except Exception as error:
        raise InputError(
            f"{path} is damaged, or of a kind that is not known here ({type(error).__name__}: {one_line(error)}); the "
            f"traceback is {keep_traceback(error)}."
        ) from error


def progress(
    items: Iterable[Item], description: str, total: int | None = None, unit: str = "image", per_item: int = 1
) -> Iterator[Item]:
    """Yield ``items`` and report count, rate (of scans, which take seconds, per minute) and time left.

    ``total`` counts units and ``per_item`` is the number of units that one item stands for (a batch of images).
    """
    if total is None and isinstance(items, Sized):
        total = len(items) * per_item
    if sys.stderr.isatty():
        with _Bar(total=total, desc=description, unit=unit, bar_format=_format(unit)) as bar:
            for item in items:
                yield item
                bar.update(per_item)
        return
    yield from _progress_lines(items, description, total, unit, per_item)


class _Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
    """A bar that knows its rate per minute as well."""

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the format may name."""
        found = super().format_dict
        return {**found, "per_minute": _per_minute(found["n"], found["elapsed"], found["rate"])}


def _format(unit: str) -> str | None:
    """How a bar looks: tqdm's own, but for scans with a rate per minute."""
    return "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {per_minute}]" if unit == "scan" else None


def _line(description: str, unit: str, done: int, total: int | None, seconds: float) -> str:
    """How far it is, after some seconds, and how long it goes on."""
    if unit != "scan" or total is None:
        return str(tqdm.format_meter(done, total, seconds, prefix=description, unit=unit, ncols=0))
    spent, left = map(tqdm.format_interval, (seconds, seconds * (total - done) / done))
    return f"{description}: {done}/{total} [{spent}<{left}, {_per_minute(done, seconds)}]"


def _per_minute(done: int, seconds: float, rate: float | None = None) -> str:
    """Scans per minute, of a rate per second or else of all that was done."""
    rate = done / seconds if rate is None and seconds else rate
    return f"{60 * rate:.3g} scans/min" if rate else "? scans/min"


def _progress_lines(
    items: Iterable[Item], description: str, total: int | None, unit: str, per_item: int
) -> Iterator[Item]:
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += per_item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            logger.info("%s", _line(description, unit, min(done, total or done), total, now - start))
    shown, seconds = done if total is None else min(done, total), time.monotonic() - start
    rate = f", {_per_minute(done, seconds)}" if unit == "scan" else ""
    logger.info("%s: %d %ss in %.1f s%s", description, shown, unit, seconds, rate)


def log_to_file(path: str) -> None:
    """Send messages, standard error and uncaught errors of a script to ``path`` (and, on a terminal, also there).

    Snakemake does not write an uncaught exception of a script to its log. An InputError is told in its one sentence.
    """
    stream = Path(path).open("w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 (stays open)
    sys.stderr = _Tee(sys.stderr, stream)
    configure_logging()
    report_errors()


def begin_job(job: Any) -> None:
    """Start the script of a rule: ``job`` is its ``snakemake`` object, whose first log file takes all that it says, and
    whose configuration says what is asked for (`dinodp.jobs.asked`).

    Raises InputError where what the script runs of the imported library is not that of the library beside the rules,
    whose digest is a parameter of them: results would not be of the code that they name.
    """
    log_to_file(job.log[0])
    ask(job.config.get("asked", {}))
    wanted = job.params.get("library")
    if wanted is not None and wanted != Closures(cache=CACHE).digest(_running_script()):
        raise InputError(
            f"The library that this Python imports, {LIBRARY}, is not the one beside the rules that run: "
            "install that one, or start snakemake from its own environment."
        )


def _running_script() -> Path:
    """The script of the rule: Snakemake runs a copy, to which it gives the path of the original."""
    return Path(str(sys.modules["__main__"].__file__))


def report_errors() -> None:
    """Tell an uncaught InputError, and memory that does not suffice, in one sentence, all else with its traceback."""
    sys.excepthook = _report_error


def _report_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, InputError):
        print(f"Error: {visible(str(error))}", file=sys.stderr)
    elif ran_out_of_memory(error):
        print(f"Error: {memory_sentence(error)} The traceback is {keep_traceback(error)}.", file=sys.stderr)
    else:
        traceback.print_exception(kind, error, trace, file=sys.stderr)


class _Tee(io.TextIOBase):
    """A text stream that writes to the terminal and to a log."""

    def __init__(self, terminal: TextIO, log: TextIO) -> None:
        self.terminal, self.log = terminal, log

    def write(self, text: str) -> int:
        self.terminal.write(text)
        if "\r" not in text:  # a progress bar redraws its line: not for the log
            self.log.write(text)
        return len(text)

    def flush(self) -> None:
        self.terminal.flush()
        self.log.flush()

    def isatty(self) -> bool:
        return self.terminal.isatty()
