"""What all benchmarks share: two things timed alternately, their ratio with its spread, and a JSON file of it all.

Machines are shared and clocks vary, so a speed is the ratio of two things timed in turn, A B A B ..., in one process;
beside wall time stands CPU time, which other people's load changes less.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

FOLDER = Path(__file__).parent
SHARED = FOLDER.parents[1] / "shared"
Call = Callable[[], Any]
Row = dict[str, Any]


def arguments(description: str | None, given: list[str] | None = None) -> argparse.Namespace:
    """Options of every benchmark; torch and BLAS get the threads."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=7, help="pairs of measurements")
    parser.add_argument("--embeddings", type=Path, help="an embeddings file to use in place of synthetic data")
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes, as in `make bench`")
    options = parser.parse_args(given)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("No CUDA device is visible: the rows of a GPU stay open.")
    set_threads(options.threads)
    return options


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    threadpool_limits(threads, user_api="blas")


def timed(call: Call) -> tuple[float, float]:
    """Wall and CPU seconds of one call; a GPU's queue is empty before and after."""
    _synchronise()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    _synchronise()
    return time.perf_counter() - wall, time.process_time() - cpu


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def alternate(ours: Call, other: Call, repeats: int, warm_up: int = 1) -> Row:
    """Time ``ours`` and ``other`` in turn; ``ratio`` is ours / other, pair by pair: median and quartiles."""
    for _ in range(warm_up):
        ours(), other()
    pairs = np.array([(timed(ours), timed(other)) for _ in range(repeats)])
    (wall, cpu), (other_wall, other_cpu) = pairs[:, 0].T, pairs[:, 1].T
    return {
        "repeats": repeats,
        "ours_s": {"wall": median(wall), "cpu": median(cpu)},
        "other_s": {"wall": median(other_wall), "cpu": median(other_cpu)},
        "ratio": {"wall": spread(wall / other_wall), "cpu": spread(cpu / np.maximum(other_cpu, 1e-9))},
    }


def median(values: np.ndarray) -> float:
    return float(f"{np.median(values):.4g}")


def spread(values: np.ndarray) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [float(f"{value:.4g}") for value in np.percentile(values, [25, 50, 75])]


def child_peak_mib(script: str, *options: str) -> float:
    """Peak memory of a benchmark's child, which prints it last."""
    command = [sys.executable, str(FOLDER / script), *options]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def machine(device: str, threads: int) -> Row:
    """Where it ran, in words."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "cpu": f"{os.cpu_count()}-core {platform.machine()}, {cpu}",
        "threads": threads,
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def report(name: str, rows: list[Row], options: argparse.Namespace) -> None:
    """Print the rows and, unless it was the small run, write them to ``results/{name}-{device}.json``."""
    for row in rows:
        print(json.dumps(row), flush=True)
    if not options.small:
        path = FOLDER / f"results/{name}-{options.device}.json"
        path.parent.mkdir(exist_ok=True)
        content = {"machine": machine(options.device, options.threads), "rows": rows}
        path.write_text(json.dumps(content, indent=1) + "\n")
