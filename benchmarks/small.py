"""Regression guard: a few ratios, this run beside the committed baseline. `make bench`.

Ratios of CPU time, since wall time depends on what else runs. `--write` makes this run the baseline.
"""

import json
import sys

import banks
import embed
import fit_diagonal
import fit_full
import memory_bank
import metrics
import score_mixture
import workflow
from runner import FOLDER, arguments, machine

BASELINE = FOLDER / "results/baseline.json"
STAGES = (fit_diagonal, fit_full, score_mixture, memory_bank, banks, metrics, embed)


def main() -> None:
    write = "--write" in sys.argv
    given = [argument for argument in sys.argv[1:] if argument != "--write"]
    options = arguments(__doc__, ["--small", "--repeats", "3", *given])
    baseline = json.loads(BASELINE.read_text()) if BASELINE.is_file() else {"rows": {}}
    print(f"{'ours / other, CPU time':62s} {'this run':>9s} {'baseline':>9s}")
    rows = {}
    for stage in STAGES:
        for row in stage.measure(options):
            rows[row["what"]] = row["ratio"]["cpu"][1]
            show(row["what"], rows, baseline)
    for row in workflow.measure(options):
        rows[row["what"] + ", s"] = row["s"]["cpu"][1]
        show(row["what"] + ", s", rows, baseline)
    if write:
        content = {"machine": machine(options.device, options.threads), "rows": rows}
        BASELINE.write_text(json.dumps(content, indent=1) + "\n")


def show(name: str, rows: dict[str, float], baseline: dict[str, dict[str, float]]) -> None:
    before = baseline["rows"].get(name)
    print(f"{name:62s} {rows[name]:9.3f} {'':>9s}" if before is None else f"{name:62s} {rows[name]:9.3f} {before:9.3f}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
