"""Run the recorded jobs of a finished run again, one at a time, each in a process of its own."""

import importlib
import json
import multiprocessing
import os
import pickle
import pkgutil
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from project_copy import copy_project, snakemake

SECONDS = 120.0  # per job
FORK = multiprocessing.get_context("fork")
TIMED = (".cost.json", "costs.csv", "costs.csv.origin.json", "report.html", "summary.md", ".pdf")  # hold times
FROM_COSTS = r"results/tables/.*\.origin\.json"  # holds the digest of costs.csv


@dataclass(frozen=True)
class Outcome:
    """``same``: the bytes of the undamaged run; ``sentence``; ``WRONG``: other bytes; ``TRACEBACK``; ``HANG``."""

    kind: str
    text: str = ""

    @property
    def is_right(self) -> bool:
        """Whether nothing is wrong in silence, and nothing unsaid."""
        return self.kind in ("same", "sentence")


class Run:
    """A finished run in a folder, and its jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def make(cls, folder: Path, configuration: dict[str, Any]) -> "Run":
        """Run the workflow with a configuration, noting its jobs."""
        folder.mkdir(parents=True)
        copy_project(folder, "run", configuration)
        shutil.copy(Path(__file__).with_name("record.smk"), folder)
        arguments = ["-s", str(folder / "record.smk"), "all", "--configfile", "config/run.yaml"]
        snakemake(folder, *arguments, environment=environment_of(folder))
        return cls(folder)

    @cached_property
    def jobs(self) -> "list[Job]":
        """All jobs."""
        recorded = pickle.loads((self.folder / "jobs.pickle").read_bytes())
        return [Job(self, Path(script), noted) for script, noted in recorded]

    def by_rule(self) -> "dict[str, Job]":
        """One job of each rule."""
        return {job.rule: job for job in self.jobs}

    def job_for(self, job: "Job") -> "Job":
        """The job of this run that makes the same files, in the folder of the other's run."""
        own = next(found for found in self.jobs if [str(path) for path in found.noted.output] == list(job.noted.output))
        return Job(job.run, job.script, own.noted)

    def results(self) -> dict[str, bytes]:
        """Content of all files of the run but logs and those that hold times, by path."""
        paths = [path for path in (self.folder / "results").rglob("*") if path.is_file() and "logs" not in path.parts]
        found = {str(path.relative_to(self.folder)): path for path in paths if not path.name.endswith(TIMED)}
        return {name: path.read_bytes() for name, path in found.items() if not re.fullmatch(FROM_COSTS, name)}


class Job:
    """A job: its script and what Snakemake gave it."""

    def __init__(self, run: Run, script: Path, noted: Any) -> None:
        self.run, self.script, self.noted = run, script, noted
        self.rule: str = noted.rule
        self.inputs = [str(path) for path in noted.input]
        self.outputs = [run.folder / str(path) for path in noted.output]

    @cached_property
    def expected(self) -> dict[Path, bytes]:
        """The bytes that it makes, but of files that hold times."""
        return {path: path.read_bytes() for path in self.outputs if not path.name.endswith(TIMED)}

    def replay(self, before: Callable[[], object] = lambda: None) -> Outcome:
        """Its outputs are put aside, made anew, compared, and put back; ``before`` is called in its process."""
        expected = self.expected
        with self._put_aside():
            said = self._run(before)
            if said.kind == "same":
                return self._compared(expected)
            left = [path.name for path in self.outputs if path.name in {p.name for p in expected} and path.exists()]
            return Outcome("WRONG", f"left {left[0]}") if left and said.kind == "sentence" else said

    def killed_and_replayed(self, first: "Job", part: float) -> Outcome:
        """``first``, which makes the same files, is killed after a part of the time that it takes; then this job runs
        upon what it left, and leaves nothing but its outputs."""
        expected, seconds = self.expected, part * first.seconds
        with self._put_aside() as kept:
            process, receiver = first._started(lambda: None)
            time.sleep(seconds)
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
            receiver.close()
            for path in self.outputs:  # as Snakemake does
                path.unlink(missing_ok=True)
            said = self._run(lambda: None)
            if said.kind != "same":
                return Outcome("TRACEBACK", said.text)  # it must go on
            left = [path.name for path in self._beside() if path not in kept and path not in self.outputs]
            return Outcome("WRONG", f"left {left[0]}") if left else self._compared(expected)

    @cached_property
    def seconds(self) -> float:
        """How long it takes."""
        begun = time.monotonic()
        self.replay()
        return time.monotonic() - begun

    def _compared(self, expected: dict[Path, bytes]) -> Outcome:
        if said := self._deviations(expected):
            return Outcome("sentence", said)
        for path, data in expected.items():
            if not path.is_file():
                return Outcome("WRONG", f"no {path.name}")
            if path.read_bytes() != data:
                return Outcome("WRONG", path.name)
        return Outcome("same")

    def _deviations(self, expected: dict[Path, bytes]) -> str:
        """What a verification found that it did not find before: to name it is its work; the next job stops there."""
        for path in expected:
            if path.name == "verification.json" and path.is_file():
                known = json.loads(expected[path])["deviations"]
                found = json.loads(path.read_bytes())["deviations"]
                return " ".join(sentence for name, sentence in found.items() if name not in known)
        return ""

    @contextmanager
    def _put_aside(self) -> Iterator[dict[Path, Any]]:
        """What lies under the names of outputs, and beside them for them, is as before at the end."""
        kept = {path: (path.read_bytes(), path.stat()) for path in self._beside()}
        for path in self.outputs:
            path.unlink(missing_ok=True)
        try:
            yield kept
        finally:
            for path in self._beside():
                if path not in kept:
                    path.unlink()
            for path, (data, made) in kept.items():
                path.write_bytes(data)
                os.utime(path, ns=(made.st_atime_ns, made.st_mtime_ns))

    def _beside(self) -> list[Path]:
        folders = {path.parent for path in self.outputs}
        return [path for folder in folders for path in folder.iterdir() if path.is_file()]

    def _run(self, before: Callable[[], object]) -> Outcome:
        process, receiver = self._started(before)
        try:
            return receiver.recv() if receiver.poll(SECONDS) else Outcome("HANG", f"more than {SECONDS:g} s")
        except EOFError:
            return Outcome("CRASH", f"exit status {process.exitcode}")
        finally:
            process.kill()
            process.join()
            receiver.close()

    def _started(self, before: Callable[[], object]) -> Any:
        load_library()
        receiver, sender = FORK.Pipe(duplex=False)
        process = FORK.Process(target=self._work, args=(before, sender))
        process.start()
        with suppress(OSError):  # it may have done so itself
            os.setpgid(process.pid, process.pid)
        sender.close()
        return process, receiver

    def _work(self, before: Callable[[], object], sender: Any) -> None:
        """As Snakemake runs the script, in its folder; nothing is printed."""
        os.setpgid(0, 0)
        os.chdir(self.run.folder)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1), os.dup2(quiet, 2)
        sys.modules["__main__"].__file__ = str(self.script)
        try:
            before()
            runpy.run_path(str(self.script), init_globals={"snakemake": self.noted})
            sender.send(Outcome("same"))
        except BaseException as error:
            sender.send(_said(error))


@cache
def load_library() -> None:
    """Import everything once, that no job has to: they are forked from this process."""
    import dinodp

    for module in pkgutil.walk_packages(dinodp.__path__, "dinodp."):
        importlib.import_module(module.name)


def _said(error: BaseException) -> Outcome:
    from dinodp.errors import InputError

    if isinstance(error, InputError):
        return Outcome("sentence" if "\n" not in str(error) else "TRACEBACK", str(error))
    places = [place for place in traceback.extract_tb(error.__traceback__) if "dinodp" in place.filename]
    where = f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else ""
    return Outcome("TRACEBACK", f"{type(error).__name__}: {' '.join(str(error).split())[:100]} {where}")


def small_files(size: int) -> Callable[[], None]:
    """A disk on which no file can grow beyond ``size`` bytes, as one that is full (EFBIG in the place of ENOSPC)."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def environment_of(folder: Path) -> dict[str, str]:
    """Of a run in a folder: it imports the library that lies there."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(folder / "scripts")}


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Begin a run of the workflow, in a session of its own."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "all", "--rerun-incomplete", *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment_of(folder),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def kill_after(process: "subprocess.Popen[str]", seconds: float) -> bool:
    """Kill a run and all its jobs, unless it ended before; whether it was killed."""
    try:
        process.communicate(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True


def readers_of(jobs: Sequence[Job], path: str) -> list[Job]:
    """One job of each rule that reads a file; a file of a data set's images is read by those that read its manifest."""
    named = "results/data/phantoms/manifest.csv" if "/images/" in path else path
    found = {job.rule: job for job in reversed(jobs) if named in job.inputs or path in job.inputs}
    return list(found.values())
