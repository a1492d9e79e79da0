"""What a job measures of itself."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dinodp.jobs.costs import measured, peak_host_mib


def test_the_peak_is_that_of_the_process_and_not_of_its_parent():
    held = np.ones(300 * 2**17)  # 300 MiB
    assert peak_host_mib() > 300
    code = "from dinodp.jobs.costs import measured, peak_host_mib as peak; before = peak(); "
    code += "x = b'x' * 2**27; print(before, peak())"
    child = [sys.executable, "-c", code]
    before, after = map(float, subprocess.run(child, check=True, capture_output=True, text=True).stdout.split())
    assert 100 < after - before < 160  # 128 MiB
    assert len(held)


PRODUCTS = """
import torch
import dinodp.families.fit_job  # nothing that a job imports may compute: MKL's first product decides
import dinodp.families.stages
from dinodp.jobs.costs import set_threads

generator = torch.Generator().manual_seed(0)
r, x = (torch.rand(3072, columns, generator=generator) for columns in (50, 33))
found = set()
for threads in (1, 2, 4):
    set_threads(threads)
    found.add((r.T @ x).numpy().tobytes())
print(len(found))
"""


def test_products_in_a_job_do_not_depend_on_the_number_of_threads():
    """Without the strict mode there are three results of three numbers of threads."""
    processors = Path("/proc/cpuinfo")
    if not (processors.is_file() and "GenuineIntel" in processors.read_text() and torch.backends.mkl.is_available()):
        pytest.skip("MKL has a strict mode on Intel's processors only")
    environment = {key: value for key, value in os.environ.items() if key != "MKL_CBWR"}
    done = subprocess.run([sys.executable, "-c", PRODUCTS], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_the_peak_of_a_gpu_is_that_of_the_block(kind, monkeypatch):
    module, reset = getattr(torch, kind), []
    monkeypatch.setattr(module, "reset_peak_memory_stats", lambda: reset.append(kind))
    monkeypatch.setattr(module, "max_memory_allocated", lambda: 3 * 2**20)
    monkeypatch.setattr(module, "get_device_name", lambda: "a GPU")
    with measured(f"{kind}:0") as cost:
        assert reset == [kind]
    assert (cost["peak_gpu_mib"], cost["device"]) == (3, "a GPU")


def test_where_no_peak_is_known_there_is_none():
    with measured("mps") as there, measured("cpu") as here:
        pass
    assert (there["peak_gpu_mib"], there["device"]) == (None, "mps")
    assert (here["peak_gpu_mib"], here["device"]) == (None, f"cpu, {torch.get_num_threads()} threads")
