"""Own scans on a faked accelerator: fitted, scored, gone on with and read again as on the CPU."""

import numpy as np
import pytest
from fake_device import faked
from scan_phantoms import FAST, head, healthy_folder, save

from dinodp.scans import AnomalyDetector

METHODS = (
    {"family": "dpmm", "components": 8, "epochs": 1},
    {"family": "eb_mixture", "components": 8, "epochs": 2},  # leaves the background out
    {"family": "patchcore", "max_embeddings": 300, "background": "leave_out"},
    {"family": "retrieval_bank", "images": 2, "max_images": 8},
    {"family": "padim", "background": "leave_out", "reg_covar": 0.01},
)


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
    np.testing.assert_allclose(found, here.anomaly_map(scan), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(again, found)
    np.testing.assert_array_equal(AnomalyDetector.load(tmp_path / "model.h5", device="cpu").anomaly_map(scan), found)
