"""Which devices there are, what they can do, and which one a job takes: a GPU that no other job of the pipeline uses.

Snakemake counts GPUs but does not say which one a job may use. A job takes the first whose lock file it can lock; the
kernel releases the lock when the process ends, however it ends.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from dinodp.errors import InputError
from dinodp.jobs.logs import logger

ACCELERATORS = ("cuda", "xpu", "mps")  # `auto` takes the first that there is, else the CPU
SECONDS_BETWEEN_TRIES = 1.0
DEVICE_FILES = Path("/dev")
_held: list[IO[str]] = []  # open, and so locked, until the process ends


def gpu_is_here() -> bool:
    """Whether this machine shows an NVIDIA GPU to this process; asked without torch, whose build may know of none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1", "NoDevFiles"):
        return False
    return any(DEVICE_FILES.glob("nvidia[0-9]*"))


def count_of(kind: str) -> int:
    """How many devices of a kind torch sees."""
    import torch  # takes seconds, and the locks need none of it

    if kind == "mps":
        return int(torch.backends.mps.is_available())
    return int(getattr(torch, kind).device_count())


def best_kind() -> str:
    """What ``auto`` is here: the first of `ACCELERATORS` that torch sees, else ``cpu``."""
    return next((kind for kind in ACCELERATORS if count_of(kind)), "cpu")


def device_of_models(device: str) -> str:
    """Where models are fitted and score what a backbone on ``device`` embeds: there or, without float64, on the CPU.

    Their sums, and differences of large numbers, need float64. MPS has none, nor have some XPUs; beside a backbone the
    models cost little.
    """
    import torch

    kind = torch.device(device).type
    if kind == "mps" or (kind == "xpu" and not torch.xpu.get_device_properties(device).has_fp64):
        return "cpu"
    return device


def take_device(device: str) -> str:
    """The device to compute on: ``cpu`` as it is; for ``cuda`` a free GPU, as ``cuda:N``, kept until the process ends.

    ``xpu`` likewise; ``mps`` is one GPU that all jobs share. ``auto`` is what `best_kind` finds; a CPU is said in the
    log. Only GPUs in ``CUDA_VISIBLE_DEVICES`` are taken where it is set, as SLURM does. Waits while all are taken.
    Raises InputError where a kind is asked for and there is none.
    """
    if device == "cpu":
        return device
    import torch

    kind = best_kind() if device == "auto" else device
    if kind == "cpu":
        logger.info("Device cpu: torch %s sees no GPU here.", torch.__version__)
        return kind
    names = _names(kind)
    if not names:
        named = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        raise InputError(
            f"run.device is {kind}, but torch sees no {kind.upper()} device: set run.device to cpu or auto, or run "
            f"where there is a GPU and torch's build for it (CUDA_VISIBLE_DEVICES is {named!r}, "
            f"torch {torch.__version__})."
        )
    if kind == "mps":
        return kind
    index = take_free(names)
    getattr(torch, kind).set_device(index)
    return f"{kind}:{index}"


def _names(kind: str) -> list[str]:
    """Names, for locks, of the devices of a kind that this process may use."""
    if kind == "cuda":
        return visible_devices()[: count_of(kind)]  # fewer than are named, where CUDA leaves some out (MIG)
    return [f"{kind}-{index}" for index in range(count_of(kind))]


def visible_devices() -> list[str]:
    """Names of the GPUs that this process may use: from ``CUDA_VISIBLE_DEVICES``, else the numbers of all."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        import torch

        return [str(index) for index in range(torch.cuda.device_count())]
    return [name.strip() for name in named.split(",") if name.strip()]


def take_free(names: Sequence[str], folder: Path | None = None) -> int:
    """Index of the first of the devices ``names`` that no other process has taken; waits for one.

    ``folder`` holds the lock files (one per device and, as SLURM may number the GPUs of every job from 0, per SLURM
    job); by default one folder per user in the directory for temporary files.
    """
    folder = folder or Path(tempfile.gettempdir(), f"dinodp-devices-{os.getuid()}")
    folder.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        for index, name in enumerate(names):
            if _lock(folder / f"{os.environ.get('SLURM_JOB_ID', 'machine')}-{name.replace('/', '_')}.lock"):
                logger.info("Device %s of %s.", name, ", ".join(names))
                return index
        if not told:
            logger.info("All devices (%s) are taken by other jobs; waiting for one.", ", ".join(names))
            told = True
        time.sleep(SECONDS_BETWEEN_TRIES)


def _lock(path: Path) -> bool:
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    _held.append(file)
    return True
