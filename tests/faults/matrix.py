"""The damage matrix: every kind of file of a run, damaged in every way, and then read by each rule that reads it."""

import json
import math
import random
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count as numbers
from pathlib import Path

import yaml
from damages import DAMAGES, Damaged
from project_copy import small_run
from replay import Job, Outcome, Run, kill_after, readers_of, small_files, start
from tqdm import tqdm

CONFIGURATION = small_run(
    (8, 4, 8),
    models=["memory_bank", "dpmm_demo"],
    figures=["anomaly_maps"],
    tables=["table1"],
)
OTHER = {**CONFIGURATION, "datasets": {"phantoms": {"n_train": 8, "n_valid": 4, "n_test": 8, "seed": 5}}}
CHANGED = {**CONFIGURATION, "models": {"dpmm_demo": {"components": 20, "epochs": 60, "step_rate": 0.9}}}
BESIDE = ".origin.json"  # what a table says of itself
KINDS = {  # a file of each kind, below results/
    "image": "data/phantoms/images/test-000_0.png",
    "mask": "data/phantoms/images/test-000_0_mask.png",
    "manifest": "data/phantoms/manifest.csv",
    "verification": "data/phantoms/verification.json",
    "checksums": "data/phantoms/checksums.csv",
    "cases": "data/phantoms/cases.csv",
    "embeddings, train": "embeddings/phantoms/classical/train.h5",
    "embeddings, test": "embeddings/phantoms/classical/test.h5",
    "cost": "embeddings/phantoms/classical/test.cost.json",
    "model, bank": "models/phantoms/classical/memory_bank/seed-0.h5",
    "model, mixture": "models/phantoms/classical/dpmm_demo/seed-0.h5",
    "scores, valid": "scores/phantoms/classical/memory_bank/seed-0/valid.h5",
    "scores, test": "scores/phantoms/classical/dpmm_demo/seed-0/test.h5",
    "curves": "curves/phantoms/classical/dpmm_demo/seed-0.h5",
    "metrics": "metrics/phantoms/classical/dpmm_demo/seed-0.json",
    "strata": "strata/phantoms/classical/dpmm_demo/seed-0.csv",
    "metrics.csv": "metrics.csv",
    "intervals.csv": "intervals.csv",
    "differences.csv": "differences.csv",
    "strata.csv": "strata.csv",
    "alignment": "alignment/phantoms/classical.csv",
    "table": "tables/table1.md",
}


@dataclass
class Table:
    """Outcomes by kind of file and damage."""

    cells: dict[tuple[str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    wrong: list[str] = field(default_factory=list)

    def add(self, kind: str, damage: str, reader: str, outcome: Outcome) -> None:
        """Count an outcome; what is not right is kept as well."""
        self.cells[kind, damage][outcome.kind] += 1
        if not outcome.is_right:
            self.wrong.append(f"{kind}, {damage}, {reader}: {outcome.kind} {outcome.text}")

    def total(self) -> Counter[str]:
        """Outcomes of all."""
        return sum(self.cells.values(), Counter())

    def markdown(self) -> str:
        """A row per kind of file, a column per damage."""
        damages = list(dict.fromkeys(damage for _, damage in self.cells))
        lines = [f"| file | {' | '.join(damages)} |", "|---" * (len(damages) + 1) + "|"]
        for kind in dict.fromkeys(kind for kind, _ in self.cells):
            cells = (self.cells.get((kind, damage), Counter()) for damage in damages)
            shown = (", ".join(f"{count} {name}" for name, count in sorted(cell.items())) for cell in cells)
            lines.append(f"| {kind} | {' | '.join(shown)} |")
        return "\n".join(lines)


@dataclass(frozen=True)
class Trial:
    """A fault: its row and column in the table, the rule that meets it, and what tries it with draws of its own."""

    kind: str
    damage: str
    reader: str
    attempt: Callable[[random.Random], Outcome]


def tried(trials: Iterable[Trial], notes: Path | None = None, end: float = math.inf) -> Table:
    """The outcomes of all trials; those in ``notes`` are not tried again, the others are added to it.

    They are tried in random order, so that a part of them is one of all kinds; none begins after ``end``, a time of the
    monotonic clock.
    """
    named = {f"{number} {trial.kind} {trial.damage} {trial.reader}": trial for number, trial in enumerate(trials)}
    known = _noted(notes)
    left = [name for name in named if name not in known]
    for name in tqdm(random.Random(0).sample(left, len(left)), mininterval=10):
        if time.monotonic() > end:
            break
        known[name] = named[name].attempt(random.Random(name))
        if notes is not None:
            _note(notes, name, known[name])
    table = Table()
    for name, trial in named.items():
        if name in known:
            table.add(trial.kind, trial.damage, trial.reader, known[name])
    return table


def _note(notes: Path, name: str, outcome: Outcome) -> None:
    if not outcome.is_right:
        tqdm.write(f"{name}: {outcome.kind} {outcome.text}")
    with notes.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"name": name, **asdict(outcome)}) + "\n")


def _noted(notes: Path | None) -> dict[str, Outcome]:
    lines = notes.read_text(encoding="utf-8").splitlines() if notes is not None and notes.is_file() else []
    found = [json.loads(line) for line in lines]
    return {note.pop("name"): Outcome(**note) for note in found}


def damages(run: Run, other: Run, whole: bool) -> Iterator[Trial]:
    """Damage, replay, compare, restore: with the file's time kept and not, by all readers; or each in turn."""
    turns = numbers()
    for kind, name in KINDS.items():
        for what, path in {kind: f"results/{name}", f"{kind}, origin": f"results/{name}{BESIDE}"}.items():
            readers = readers_of(run.jobs, path.removesuffix(BESIDE))
            file, twin = run.folder / path, other.folder / path
            if not file.is_file() or not readers:
                continue
            for damage in DAMAGES:
                if damage == "other run's" and twin.read_bytes() == file.read_bytes():
                    continue
                turn = next(turns)
                for keep_time in (True, False) if whole else (turn % 2 == 0,):
                    for job in readers if whole else [readers[turn % len(readers)]]:
                        yield Trial(what, damage, job.rule, _damage(file, damage, twin, keep_time, job))


def _damage(path: Path, damage: str, twin: Path, keep_time: bool, job: Job) -> Callable[[random.Random], Outcome]:
    def attempt(draw: random.Random) -> Outcome:
        job.expected  # noqa: B018 (read before anything is damaged)
        with Damaged(path, DAMAGES[damage], twin, draw, keep_time):
            return job.replay()

    return attempt


def full_disks(run: Run) -> Iterator[Trial]:
    """One job of each rule on a disk on which no file grows beyond nothing, or half of the largest output."""
    for rule, job in run.by_rule().items():
        for room in ("no space", "some space"):
            yield Trial(rule, room, rule, _fill(job, room))


def _fill(job: Job, room: str) -> Callable[[random.Random], Outcome]:
    def attempt(draw: random.Random) -> Outcome:
        largest = max(path.stat().st_size for path in job.outputs)
        return job.replay(small_files(0 if room == "no space" else draw.randrange(1, max(2, largest // 2))))

    return attempt


def flips(run: Run, count: int) -> Iterator[Trial]:
    """One bit of models, scores and embeddings, read by the job that uses them."""
    kinds = ("model, mixture", "model, bank", "scores, test", "scores, valid", "embeddings, test")
    for kind in kinds:
        path = run.folder / "results" / KINDS[kind]
        reader = next(job for job in readers_of(run.jobs, f"results/{KINDS[kind]}") if job.rule in READERS)
        for _ in range(count // len(kinds)):
            yield Trial(kind, "bit flipped", reader.rule, _damage(path, "bit flipped", path, True, reader))


READERS = ("score", "evaluate")  # of what a bit is flipped in


def killed_jobs(run: Run, changed: Run, count: int) -> Iterator[Trial]:
    """Kill a job at a random moment, of the same configuration or of another, and run it again."""
    jobs = {rule: job for rule, job in run.by_rule().items() if rule in changed.by_rule()}
    order = sorted(jobs, key=lambda rule: rule not in ("fit_model", "embed", "score", "evaluate"))
    for number in range(count):
        job = jobs[order[number // 2 % len(order)]]
        first = changed.job_for(job) if number % 2 else job
        yield Trial(f"job: {job.rule}", SAME[number % 2], job.rule, _kill(job, first))


SAME = ("same configuration", "changed configuration")


def _kill(job: Job, first: Job) -> Callable[[random.Random], Outcome]:
    return lambda draw: job.killed_and_replayed(first, draw.random())


def killed_runs(run: Run, folder: Path, count: int, seconds: float = 40) -> Iterator[Trial]:
    """Kill a whole run at a random moment, of the same configuration or of another, and go on with it."""
    for number in range(count):
        first = (CONFIGURATION, CHANGED)[number % 2]
        yield Trial("whole run", SAME[number % 2], "all", _kill_run(run, folder / f"killed-{number}", first, seconds))


def _kill_run(run: Run, folder: Path, first: dict, seconds: float) -> Callable[[random.Random], Outcome]:
    def attempt(draw: random.Random) -> Outcome:
        expected = run.results()
        begin_again(run, folder, draw)
        was_killed, said = killed_and_finished(folder, first, draw.uniform(2, seconds))
        differing = differences(Run(folder).results(), expected)
        shutil.rmtree(folder)
        if said or differing:
            return Outcome("TRACEBACK" if said else "WRONG", said or differing)
        return Outcome("same", "" if was_killed else "it had ended before")

    return attempt


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> str:
    """Files that are missing, or have other bytes; empty where there is none."""
    missing = [f"no {path}" for path in expected if path not in found]
    return ", ".join([*missing, *(path for path, data in found.items() if data != expected.get(path, data))])


def begin_again(run: Run, folder: Path, draw: random.Random) -> None:
    """A copy of a finished run without the files of one to all of its jobs, and of all that were made from them.

    Without the latter, Snakemake would make none of the former anew: what it needs is there.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run.folder, folder)
    for job in undone(run.jobs, draw.sample(run.jobs, draw.choice((1, 2, 4, len(run.jobs))))):
        for path in job.noted.output:
            (folder / path).unlink(missing_ok=True)


def undone(jobs: Sequence[Job], first: Sequence[Job]) -> list[Job]:
    """Jobs and all that read what they make, directly or not."""
    found = list(first)
    for job in found:  # which grows
        made = {str(path) for path in job.noted.output}
        found += [reader for reader in jobs if reader not in found and made & set(reader.inputs)]
    return found


def killed_and_finished(folder: Path, first: dict, seconds: float) -> tuple[bool, str]:
    """Begin with the configuration ``first``, kill it, go on with the run's own.

    Returns whether it was killed, and what the second run says where it fails.
    """
    (folder / "config/first.yaml").write_text(yaml.safe_dump(first))
    was_killed = kill_after(start(folder, "--configfile", "config/first.yaml"), seconds)
    start(folder, "--unlock", "--configfile", "config/run.yaml").communicate()
    again = start(folder, "--configfile", "config/run.yaml")
    text, _ = again.communicate(timeout=1200)
    return was_killed, "" if again.returncode == 0 else text[-3000:]


def unsound(run: Run) -> list[str]:
    """Rules whose jobs do not give the same bytes when nothing is damaged."""
    return [job.rule for job in run.by_rule().values() if job.replay().kind != "same"]
