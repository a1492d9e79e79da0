import subprocess
import sys

import pytest

import dinodp.scans


def test_the_detector_is_imported_when_it_is_asked_for():
    code = (
        "import sys, dinodp.scans\nassert 'torch' not in sys.modules\n"
        "from dinodp.scans import AnomalyDetector\nassert 'torch' in sys.modules\n"
        "from dinodp.scans.detecting.detector import AnomalyDetector as same\nassert AnomalyDetector is same"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match=r"module 'dinodp\.scans' has no attribute 'Detector'"):
        _ = dinodp.scans.Detector
