"""What a job measures of itself."""

import subprocess
import sys

import numpy as np

from dinodp.jobs.costs import peak_host_mib


def test_the_peak_is_that_of_the_process_and_not_of_its_parent():
    held = np.ones(300 * 2**17)  # 300 MiB
    assert peak_host_mib() > 300
    code = "from dinodp.jobs.costs import peak_host_mib as peak; before = peak(); "
    code += "x = b'x' * 2**27; print(before, peak())"
    child = [sys.executable, "-c", code]
    before, after = map(float, subprocess.run(child, check=True, capture_output=True, text=True).stdout.split())
    assert 100 < after - before < 160  # 128 MiB
    assert len(held)
