"""Own scans on a faked accelerator: fitted, scored, gone on with and read again as on the CPU."""

import numpy as np
import pytest
from accelerator_cases import METHODS
from fake_device import faked
from scan_phantoms import FAST, head, healthy_folder, save

from dinodp.scans import AnomalyDetector


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return healthy_folder(tmp_path_factory.mktemp("healthy"), 3)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method["family"])
@pytest.mark.parametrize(("kind", "float64"), [("cuda", True), ("mps", False)])
def test_the_map_is_that_of_the_cpu(method, kind, float64, folder, tmp_path, monkeypatch):
    options = {**FAST, "resolution": 70, "slice_step": 6, "method": method}
    scan = save(tmp_path / "lesion.nii.gz", head(7, lesion=True))
    here = AnomalyDetector(**options, device="cpu").fit(folder)
    with faked(monkeypatch, kind, float64=float64):
        there = AnomalyDetector(**options, device="auto").fit(folder)
        assert there.fitted_.scorer.embedder.device.type == kind
        found = there.anomaly_map(scan)
        there.save(tmp_path / "model.h5")
        again = AnomalyDetector.load(tmp_path / "model.h5", device=kind).anomaly_map(scan)
    loaded = AnomalyDetector.load(tmp_path / "model.h5", device="cpu").anomaly_map(scan)
    for expected in (here.anomaly_map(scan), loaded):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(again, found)
