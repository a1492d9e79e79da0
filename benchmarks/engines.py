"""The demo's run by three engines in turn: local, local with its work in shards, and a SLURM of one node on loopback.

Wall seconds of the whole command, installation left out; the SLURM is the one that the tests start (tests/cluster).
"""

import os
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from time import perf_counter

import numpy as np
import yaml
from runner import FOLDER, Row, arguments, report, spread

ROOT = FOLDER.parent
sys.path.append(str(ROOT / "tests/cluster"))
import slurm  # noqa: E402

SHARDS = 2


def snakemake(folder: Path, environment: dict[str, str], *options: str) -> float:
    """Wall seconds of the demo in an empty folder; ends with what snakemake said where it fails."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "-d", str(folder), *options]
    begin = perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=3600)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return perf_counter() - begin


def write_site(folder: Path) -> Path:
    """profiles/slurm without conda and accounting, as in the tests; the look at the queue is the profile's."""
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    del profile["use-conda"]
    profile |= {"slurm-status-command": "squeue", "slurm-no-account": True}
    (folder / "site").mkdir()
    (folder / "site/config.yaml").write_text(yaml.safe_dump(profile))
    return folder / "site"


def measure(options: Namespace) -> list[Row]:
    if reason := slurm.missing():
        sys.exit(f"{reason}.")
    demo = str(ROOT / "config/demo.yaml")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shards = folder / "shards.yaml"
        shards.write_text(yaml.safe_dump({"run": {"shards": SHARDS}}))
        (folder / "slurm").mkdir()
        cluster = slurm.Cluster(folder / "slurm")
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        local = {**os.environ, "PATH": path}
        first, rest = cluster.environment["PATH"].split(":", 1)  # the cluster's own commands stay first
        through_slurm = {**cluster.environment, "PATH": f"{first}:{Path(sys.executable).parent}:{rest}"}
        ways = {
            "local": (local, "--cores", "2", "--configfile", demo),
            f"local, {SHARDS} shards": (local, "--cores", "2", "--configfile", demo, str(shards)),
            "SLURM": (through_slurm, "--workflow-profile", str(write_site(folder)), "--configfile", demo),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        try:
            cluster.start()
            for _ in range(options.repeats):
                for name, (environment, *given) in ways.items():
                    times[name].append(snakemake(folder / "run", environment, *given))
        finally:
            cluster.stop()
    base = np.array(times["local"])
    return [
        {"what": f"the demo, {name}", "s": spread(np.array(values)), "ratio_to_local": spread(np.array(values) / base)}
        for name, values in times.items()
    ]


if __name__ == "__main__":
    options = arguments(__doc__)
    report("engines", measure(options), options)
