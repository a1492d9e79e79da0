"""Run a reader on many inputs in a process of its own, of which memory and time are bounded."""

import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinodp.errors import InputError

MEMORY = 2**30  # bytes that a reader may fill beyond what the process has when it starts
ADDRESSES = 5 * 2**30  # that it may reserve: a read of a length of 32 bits reserves it, and fills what there is
SECONDS = 10.0  # of CPU time, per input
PATIENCE = 120.0  # seconds, for a reader that waits, and for a machine that is busy elsewhere
Reader = Callable[[Path], object]
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Outcome:
    """``value``, ``sentence``, or what is wrong: ``traceback``, ``memory``, ``hang``, ``crash``, ``no sentence``."""

    kind: str
    text: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the reader did what it must."""
        return self.kind in ("value", "sentence")


def outcomes(reader: Reader, inputs: Callable[[int], Path], count: int) -> Iterator[Outcome]:
    """What the reader makes of each of the inputs 0 to ``count`` - 1, which are written as they are reached."""
    done = 0
    while done < count:
        for outcome in _until_it_ends(reader, inputs, done, count):
            done += 1
            yield outcome


def _until_it_ends(reader: Reader, inputs: Callable[[int], Path], first: int, count: int) -> Iterator[Outcome]:
    """The outcomes of one process: up to the last input, or to one that ends it."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_work, args=(reader, inputs, first, count, sender), daemon=True)
    process.start()
    sender.close()
    try:
        for _ in range(first, count):
            if _hangs(receiver, process.pid):
                yield Outcome("hang", f"more than {SECONDS:g} s of CPU time, or {PATIENCE:g} s")
                return
            try:
                yield receiver.recv()
            except EOFError:
                process.join()
                yield Outcome("crash", f"exit status {process.exitcode}")
                return
    finally:
        process.kill()
        process.join()
        receiver.close()


def _hangs(receiver: Any, pid: int) -> bool:
    """Wait for an outcome; whether there is none when the process has computed, or been waited for, too long."""
    start, end = _cpu_seconds(pid), time.monotonic() + PATIENCE
    while not receiver.poll(0.5):
        if _cpu_seconds(pid) - start > SECONDS or time.monotonic() > end:
            return True
    return False


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process, user's and system's (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _work(reader: Reader, inputs: Callable[[int], Path], first: int, count: int, sender: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1), os.dup2(quiet, 2)  # decoders in C speak of damage on standard error
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(first, count):
        before, outcome = _peak(), _outcome(reader, inputs(number))
        taken = _peak() - before
        sender.send(outcome if taken <= MEMORY else Outcome("memory", f"{taken / 2**30:.1f} GiB {outcome.text}"))


def _peak() -> int:
    """Bytes of memory that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _outcome(reader: Reader, path: Path) -> Outcome:
    try:
        reader(path)
    except InputError as error:
        return _judged(error)
    except MemoryError:
        return Outcome("memory", _last_place())
    except BaseException as error:
        return Outcome("traceback", f"{type(error).__name__}: {str(error)[:120]!r} {_last_place()}")
    return Outcome("value")


def _judged(error: InputError) -> Outcome:
    """A sentence; but memory that ran out is none, though a reader may have caught that as damage."""
    text = str(error)
    if any(isinstance(cause, MemoryError) for cause in (error.__cause__, error.__context__)):
        return Outcome("memory", text[:200])
    one_sentence = "\n" not in text and text.endswith(".") and len(text) < 2000
    return Outcome("sentence" if one_sentence else "no sentence", text[:200])


def _last_place() -> str:
    places = [place for place in traceback.extract_tb(sys.exc_info()[2]) if "dinodp" in place.filename]
    return f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else ""
