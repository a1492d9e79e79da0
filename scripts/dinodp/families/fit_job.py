"""One fit of the pipeline from files to files, by this process or by several (``torchrun``) on this machine.

The latter is started as ``torchrun --standalone --nproc-per-node N -m dinodp.families.fit_job JSON``.
"""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dinodp.datasets.manifest import read_manifest
from dinodp.errors import InputError
from dinodp.families import model_options
from dinodp.families.stages import fit_model, open_split
from dinodp.jobs.asked import ask, asked
from dinodp.jobs.costs import measured, set_threads, write_cost
from dinodp.jobs.devices import device_of_models, take_device, visible_devices
from dinodp.jobs.logs import configure_logging, report_errors
from dinodp.jobs.processes import current_group, is_first, join, leave

FIRST = "[default0]:"  # before each line of the first process
MISTAKE = re.compile(r"\[default\d+\]:(?:\[rank\d+\]: )?Error: (.*)")


@dataclass(frozen=True)
class FitJob:
    """Paths, a catalog entry and numbers: plain values, so that it can be handed to other processes."""

    manifest: str
    train: str
    valid: str
    model: str
    cost: str
    options: Mapping[str, Any]
    grid: Sequence[int] | None
    seed: int
    device: str
    threads: int
    cache: str = "none"
    asked: Mapping[str, Any] = field(default_factory=dict)

    def run(self, processes: int = 1) -> None:
        """Fit, and write the model and its cost. Raises InputError as ``fit_model`` does."""
        if processes > 1:
            _run_processes(replace(self, device=_device_of_all(self.device, processes)), processes)
        else:
            self._fit()

    def _fit(self) -> None:
        set_threads(self.threads)
        device, manifest = take_device(self.device), read_manifest(Path(self.manifest))
        group, options = current_group(), model_options(self.options)
        train, valid = (
            open_split(Path(path), options, self.grid, manifest, split, normal_only=True, cache=self.cache)
            for path, split in ((self.train, "train"), (self.valid, "valid"))
        )
        with measured(device_of_models(device)) as cost:
            size = fit_model(Path(self.model), options, train, valid, seed=self.seed, device=device)
        if is_first(group):
            write_cost(Path(self.cost), {**cost, **size})


def _device_of_all(device: str, processes: int) -> str:
    """``cuda`` or ``cpu`` for each of several processes; ``auto`` is ``cuda`` where each has a GPU of its own."""
    if device == "auto":
        from torch import cuda

        device = "cuda" if cuda.device_count() >= processes else "cpu"
    if device in ("mps", "xpu"):
        raise InputError(f"run.processes is {processes}, but run.device is {device}: processes share cuda or cpu only.")
    if device == "cuda" and len(visible_devices()) < processes:
        raise InputError(f"run.processes is {processes}, but {len(visible_devices())} GPUs are visible.")
    return device


def _run_processes(job: FitJob, processes: int) -> None:
    """Start ``torchrun``, pass on what its first process says, and end with its end."""
    share = {**asdict(job), "asked": asked(), "threads": max(1, job.threads // processes)}
    library = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [library, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    said = []
    with tempfile.TemporaryDirectory() as logs:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += ["--tee", "3", "--log-dir", logs, "-m", "dinodp.families.fit_job", json.dumps(share)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, preexec_fn=_end_with
        ) as torchrun:
            for line in torchrun.stdout or ():
                said.append(line)
                if line.startswith(FIRST):
                    sys.stderr.write(line.removeprefix(FIRST))
    if torchrun.returncode:
        if mistake := next(filter(None, map(MISTAKE.match, said)), None):
            raise InputError(mistake[1])
        raise RuntimeError(f"torchrun ended with status {torchrun.returncode}:\n{''.join(said)}")


def _end_with() -> None:
    """Let the kernel end this process when its parent ends: no process of a killed job goes on."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG


def main() -> None:
    """One of the processes that ``torchrun`` starts."""
    _end_with()
    configure_logging()
    report_errors()
    job = FitJob(**json.loads(sys.argv[1]))
    ask(job.asked)
    join(job.device)
    job.run()
    leave()


if __name__ == "__main__":
    main()
