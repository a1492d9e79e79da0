"""The damage matrix: every kind of file of a run, damaged in every way, and then read by each rule that reads it."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from damages import DAMAGES, Damaged
from project_copy import small_run
from replay import Outcome, Run, readers_of, small_files
from tqdm import tqdm

CONFIGURATION = small_run(
    (8, 4, 8),
    models=["memory_bank", "dpmm_demo"],
    figures=["anomaly_maps"],
    tables=["table1"],
)
OTHER = {**CONFIGURATION, "datasets": {"phantoms": {"n_train": 8, "n_valid": 4, "n_test": 8, "seed": 5}}}
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
        """Count an outcome; what is not right is told as well."""
        self.cells[kind, damage][outcome.kind] += 1
        if not outcome.is_right:
            tqdm.write(f"{kind}, {damage}, {reader}: {outcome.kind} {outcome.text}")
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


def cases(run: Run, whole: bool) -> Iterator[tuple[str, Path, str, bool, list]]:
    """Kind, file, damage, whether its time is kept, and the jobs that then run: all readers, or one in turn."""
    turn = 0
    for kind, name in KINDS.items():
        files = {kind: f"results/{name}", f"{kind}, origin": f"results/{name}{BESIDE}"}
        for what, path in files.items():
            readers = readers_of(run.jobs, path.removesuffix(BESIDE))
            if not (run.folder / path).is_file() or not readers:
                continue
            for damage in DAMAGES:
                for keep_time in (True, False) if whole else (turn % 2 == 0,):
                    chosen = readers if whole else [readers[turn % len(readers)]]
                    yield what, run.folder / path, damage, keep_time, chosen
                    turn += 1


def damage_files(run: Run, other: Run, whole: bool, seed: int = 0, kinds: tuple[str, ...] = ()) -> Table:
    """Damage, replay, compare, restore."""
    table, draw = Table(), random.Random(seed)
    for kind, path, damage, keep_time, jobs in tqdm(list(cases(run, whole)), "damages", mininterval=10):
        if kinds and kind not in kinds:
            continue
        twin = other.folder / path.relative_to(run.folder)
        if damage == "other run's" and twin.read_bytes() == path.read_bytes():
            continue
        for job in jobs:
            job.expected  # noqa: B018 (read before anything is damaged)
            with Damaged(path, DAMAGES[damage], twin, draw, keep_time):
                table.add(kind, damage, job.rule, job.replay())
    return table


def fill_disk(run: Run, seed: int = 0) -> Table:
    """One job of each rule on a disk on which no file grows beyond nothing, or half of the largest output."""
    table, draw = Table(), random.Random(seed)
    for rule, job in {job.rule: job for job in run.jobs}.items():
        largest = max(path.stat().st_size for path in job.outputs)
        for size in (0, draw.randrange(1, max(2, largest // 2))):
            outcome = job.replay(small_files(size))
            table.add(rule, "no space" if size == 0 else "some space", rule, outcome)
    return table


def flip_bits(run: Run, other: Run, count: int, seed: int = 0) -> Table:
    """One bit of models and scores, read by the job that uses them."""
    table, draw = Table(), random.Random(seed)
    for number in tqdm(range(count), "flips", mininterval=10):
        kind = ("model, mixture", "model, bank", "scores, test", "scores, valid", "embeddings, test")[number % 5]
        path = run.folder / "results" / KINDS[kind]
        readers = readers_of(run.jobs, f"results/{KINDS[kind]}")
        reader = next(job for job in readers if job.rule in ("score", "evaluate"))
        reader.expected  # noqa: B018 (read before anything is damaged)
        with Damaged(path, DAMAGES["bit flipped"], path, draw, keep_time=True):
            table.add(kind, "bit flipped", reader.rule, reader.replay())
    return table


def unsound(run: Run) -> list[str]:
    """Rules whose jobs do not give the same bytes when nothing is damaged."""
    return [job.rule for job in {job.rule: job for job in run.jobs}.values() if job.replay().kind != "same"]
