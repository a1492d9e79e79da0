"""The long run, ``make faults``: damages, flipped bits, full disks, kills; writes their table into the documentation.

``python tests/faults/faults.py [--kills N] [--flips N] [--folder F]``; exit status 1 where anything is wrong.
"""

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from matrix import CONFIGURATION, OTHER, Table, damage_files, fill_disk, flip_bits
from project_copy import ROOT
from replay import Outcome, Run
from test_faults import CHANGED, differing, killed_and_finished

PAGE = ROOT / "docs/reliability.md"
BEGIN, END = "<!-- make faults: begin -->", "<!-- make faults: end -->"


def kill_runs(run: Run, count: int, seed: int = 0) -> Table:
    """Kill the whole run at random moments, every other time one of another configuration, and go on."""
    table, draw, expected = Table(), random.Random(seed), run.results()
    for number in range(count):
        name, first = (("same configuration", CONFIGURATION), ("changed configuration", CHANGED))[number % 2]
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = killed_and_finished(run, Path(folder) / "killed", first, draw.uniform(3, 60))
            except AssertionError as error:
                table.add("whole run", name, "all", Outcome("TRACEBACK", str(error)[-300:]))
                continue
        wrong = differing(found, expected)
        table.add("whole run", name, "all", Outcome("WRONG", wrong[0]) if wrong else Outcome("same"))
    return table


def write_page(tables: dict[str, Table]) -> None:
    """Put the tables between the markers of the page."""
    parts = []
    for heading, table in tables.items():
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(table.total().items()))
        parts.append(f"**{heading}**: {sum(table.total().values())} tried: {counts}.\n\n{table.markdown()}\n")
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{chr(10).join(parts)}{END}{after}", encoding="utf-8")


def main() -> int:
    """Make two runs, break one in every way, tell what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="keep the two runs here, or take those that are here")
    parser.add_argument("--quick", action="store_true", help="each damage is read by one rule only")
    arguments = parser.parse_args()
    base = arguments.folder or Path(tempfile.mkdtemp())
    made = {
        name: Run(base / name) if (base / name).is_dir() else Run.make(base / name, configuration)
        for name, configuration in (("one", CONFIGURATION), ("other", OTHER))
    }
    run, other = made["one"], made["other"]
    tables = {
        "Damaged files": damage_files(run, other, whole=not arguments.quick),
        "Full disks": fill_disk(run),
        "Flipped bits": flip_bits(run, other, arguments.flips),
        "Kills": kill_runs(run, arguments.kills),
    }
    write_page(tables)
    wrong = [line for table in tables.values() for line in table.wrong]
    print("\n".join(wrong) or "Nothing is wrong, and nothing unsaid.")
    if arguments.folder is None:
        shutil.rmtree(base)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
