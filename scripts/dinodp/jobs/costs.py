"""Time, memory and size: measured beside each result, never inside it, so that results keep their bytes."""

import os
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import torch

from dinodp.jobs.origin import read_result, write_result

KIB_PER_MIB = 1024
BYTES_PER_MIB = 2**20


def set_threads(threads: int) -> None:
    """Let torch use the threads that the rule was given; sums over rows in Intel's MKL do not depend on their number.

    MKL reads the variable at its first call, so nothing computes while modules are imported. Elsewhere than on Intel's
    processors it knows no such mode.
    Source: oneMKL Developer Guide, "Reproducibility Conditions", strict CNR mode.
    """
    processors = Path("/proc/cpuinfo")
    if processors.is_file() and "GenuineIntel" in processors.read_text():
        os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    torch.set_num_threads(max(1, threads))


def peak_host_mib() -> float:
    """Highest resident memory of this process so far. On Linux ``ru_maxrss`` would hold that of its parent as well."""
    status = Path("/proc/self/status")
    if status.is_file():
        return float(status.read_text().split("VmHWM:")[1].split()[0]) / KIB_PER_MIB
    unit = BYTES_PER_MIB if sys.platform == "darwin" else KIB_PER_MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


@contextmanager
def measured(device: str) -> Iterator[dict[str, float | str | None]]:
    """Measure the block: seconds, peak host MiB of the process so far, peak GPU MiB (None on cpu and mps)."""
    cost: dict[str, float | str | None] = {}
    kind = torch.device(device).type
    counter = getattr(torch, kind) if kind in ("cuda", "xpu") else None  # of MPS there is no peak
    if counter is not None:
        counter.reset_peak_memory_stats()
    start = perf_counter()
    yield cost
    cost["seconds"] = perf_counter() - start
    cost["peak_host_mib"] = peak_host_mib()
    cost["peak_gpu_mib"] = None if counter is None else counter.max_memory_allocated() / BYTES_PER_MIB
    cost["device"] = kind if counter is None else counter.get_device_name()
    if kind == "cpu":
        cost["device"] = f"cpu, {torch.get_num_threads()} threads"


def gather_costs(parts: Sequence[Path], path: Path) -> None:
    """The cost of a work that several jobs shared: seconds and images summed, the highest peaks."""
    costs = [read_result(part) for part in parts]
    gpu = [cost["peak_gpu_mib"] for cost in costs if cost["peak_gpu_mib"] is not None]
    total = {
        "seconds": sum(cost["seconds"] for cost in costs),
        "images": sum(cost["images"] for cost in costs),
        "peak_host_mib": max(cost["peak_host_mib"] for cost in costs),
        "peak_gpu_mib": max(gpu) if gpu else None,
        "device": costs[0]["device"],
    }
    write_cost(path, total)


def write_cost(path: Path, cost: Mapping[str, float | str | None]) -> None:
    """Write what one job cost as JSON."""
    write_result(path, cost, __name__, {})
