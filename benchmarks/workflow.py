"""Overhead of the workflow: a run with nothing to do, listing the paper's jobs, and what one job costs before it works.

Reach: a run with nothing to do takes less than 3 s; overhead below 5 % of a paper run.
"""

import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
from runner import FOLDER, Row, arguments, report, spread

ROOT = FOLDER.parent
BIN = Path(sys.executable).parent
IMPORTS = {
    "python alone": "pass",
    "embed, ViT": "import dinodp.embeddings, dinodp.backbones.vision_transformer, dinodp.jobs.costs",
    "embed, classical": "import dinodp.embeddings, dinodp.backbones.classical_descriptor, dinodp.jobs.costs",
    "fit_model, score": "import dinodp.families.stages, dinodp.jobs.costs",
    "evaluate": "import dinodp.evaluation.test_split",
    "collect_metrics": "import dinodp.evaluation.collecting",
    "draw_figure": "import dinodp.report.figure_inputs, dinodp.report.figures",
}


def seconds(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    timing = subprocess.run(
        ["/bin/bash", "-c", 'TIMEFORMAT="%R %U %S"; time "$0" "$@" >/dev/null 2>&1', *command],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    wall, user, system = map(float, timing.stderr.split()[-3:])
    return wall, user + system


def commands(repeats: int, all_commands: dict[str, list[str]]) -> list[Row]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in all_commands}
    for _ in range(repeats):
        for name, command in all_commands.items():
            times[name].append(seconds(command))
    rows = []
    for name, pairs in times.items():
        wall, cpu = np.array(pairs).T
        rows.append({"what": name, "s": {"wall": spread(wall), "cpu": spread(cpu)}})
    return rows


def jobs_of_the_paper() -> Row:
    listing = subprocess.run(
        [str(BIN / "snakemake"), "-n", "--configfile", "config/paper.yaml"], capture_output=True, text=True, cwd=ROOT,
        check=True,
    ).stdout  # fmt: skip
    table = re.findall(r"(?m)^(\w+)\s+(\d+)$", listing.split("Job stats:")[1].split("\n\n")[0])
    return {"what": "jobs of the paper's run", "jobs": {name: int(count) for name, count in table}}


def measure(options: Namespace) -> list[Row]:
    snakemake, python = str(BIN / "snakemake"), sys.executable
    calls = {"nothing to do: -n on the paper": [snakemake, "-n", "-q", "all", "--configfile", "config/paper.yaml"]}
    if not options.small:
        if (ROOT / "results/metrics.csv").is_file():
            calls["nothing to do: the finished demo"] = [snakemake, "--cores", "2", "-q", "all"]
        calls |= {
            f"imports: {name}": [python, "-c", f"import sys; sys.path.insert(0, 'scripts'); {code}"]
            for name, code in IMPORTS.items()
        }
    rows = commands(options.repeats, calls)
    return rows if options.small else [*rows, jobs_of_the_paper()]


if __name__ == "__main__":
    options = arguments(__doc__)
    report("workflow", measure(options), options)
