"""The long run, ``make faults``: damages, flipped bits, full disks, kills; writes their table into the documentation.

``python tests/faults/faults.py [--kills N] [--flips N] [--folder F] [--seconds S]``; exit status 1 where anything is
wrong. What is in the folder already is not tried again: a run that was broken off goes on.
The table holds what was tried.
"""

import argparse
import sys
import time
from pathlib import Path

from matrix import CHANGED, CONFIGURATION, OTHER, Table, damages, flips, full_disks, killed_jobs, killed_runs, tried
from project_copy import ROOT
from replay import Run

PAGE = ROOT / "docs/reliability.md"
BEGIN, END = "<!-- make faults: begin -->", "<!-- make faults: end -->"
MATRIX = "Damaged files"
KILLED_RUNS = 4  # of how many kills one is of a whole run, the others of a job


def write_page(tables: dict[str, Table]) -> None:
    """Put the counts of each part, and the matrix of damages, between the markers of the page."""
    lines = ["| fault | tried | outcomes |", "|---|--:|---|"]
    for heading, table in tables.items():
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(table.total().items()))
        lines.append(f"| {heading} | {sum(table.total().values())} | {counts} |")
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    shown = "\n".join(lines) + f"\n\n{tables[MATRIX].markdown()}\n"
    PAGE.write_text(f"{before}{BEGIN}\n{shown}{END}{after}", encoding="utf-8")


def made(folder: Path, configuration: dict) -> Run:
    """The finished run in a folder; made anew unless it is there."""
    return Run(folder) if (folder / "results/report.html").is_file() else Run.make(folder, configuration)


def main() -> int:
    """Make three runs, break one in every way, tell what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=Path("results/faults"), help="of the runs and of what was tried")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no trial of a part begins later")
    parser.add_argument("--quick", action="store_true", help="each damage is read by one rule only")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    run, other, changed = (
        made(folder / name, configuration)
        for name, configuration in (("one", CONFIGURATION), ("other", OTHER), ("changed", CHANGED))
    )
    n_runs = arguments.kills // KILLED_RUNS
    parts = {
        MATRIX: damages(run, other, whole=not arguments.quick),
        "Full disks": full_disks(run),
        "Flipped bits": flips(run, arguments.flips),
        "Killed jobs": killed_jobs(run, changed, arguments.kills - n_runs),
        "Killed runs": killed_runs(run, folder, n_runs),
    }
    tables = {
        heading: tried(trials, folder / f"{heading}.jsonl", time.monotonic() + arguments.seconds)
        for heading, trials in parts.items()
    }
    write_page(tables)
    wrong = [line for table in tables.values() for line in table.wrong]
    print("\n".join(wrong) or "Nothing is wrong, and nothing unsaid.")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
