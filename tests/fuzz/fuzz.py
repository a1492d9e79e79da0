"""Fuzz the readers: ``python tests/fuzz/fuzz.py [--seconds S] [--count N] [--seed N] [reader ...]``.

Findings are kept as ``tests/fuzz/findings/<reader>-<seed>-<number>``.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from readers import TARGETS, Target
from sandbox import Outcome, outcomes

FINDINGS = Path(__file__).parent / "findings"


def fuzz(target: Target, seed: int, count: int, seconds: float, keep: Path | None = None) -> tuple[Counter, list]:
    """How often each kind of outcome occurred, and (number, outcome) of one input of each kind that is wrong."""
    found: Counter[str] = Counter()
    wrong: dict[str, tuple[int, Outcome]] = {}
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "in"
        place.mkdir()
        write = target.inputs(place, seed)
        for number, outcome in zip(itertools.count(), outcomes(target.read, write, count), strict=False):
            found[outcome.kind] += 1
            if not outcome.is_right and (like := _alike(outcome)) not in wrong:
                wrong[like] = (number, outcome)
                if keep is not None:
                    _keep(write(number), keep / f"{target.name}-{seed}-{number}")
            if time.monotonic() > end:
                break
    return found, list(wrong.values())


def _alike(outcome: Outcome) -> str:
    """What findings of one cause have in common."""
    kind, _, where = outcome.text.partition(":")
    return f"{outcome.kind} {kind if where else ''} {where.rpartition(' ')[2]}"


def _keep(path: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    target.write_bytes((path / "1.dcm" if path.is_dir() else path).read_bytes())


def main() -> int:
    """Print one line per reader, and each kind of finding; exit status 1 where there is any."""
    parser = argparse.ArgumentParser()
    parser.add_argument("reader", nargs="*")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failed = False
    print("| reader | inputs | value | sentence | wrong |\n|---|--:|--:|--:|--:|")
    for name in arguments.reader or TARGETS:
        found, wrong = fuzz(TARGETS[name], arguments.seed, arguments.count, arguments.seconds, FINDINGS)
        total, right = sum(found.values()), found["value"] + found["sentence"]
        print(f"| {name} | {total} | {found['value']} | {found['sentence']} | {total - right} |", flush=True)
        for number, outcome in wrong:
            print(f"    {name} {number}: {outcome.kind} {outcome.text}", file=sys.stderr, flush=True)
        failed = failed or bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
