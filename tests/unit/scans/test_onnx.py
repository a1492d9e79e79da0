"""The ONNX graph gives PyTorch's maps in onnxruntime."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scan_phantoms import FAST, MIXTURE, head, healthy_folder, save
from torch.nn import functional

from dinodp.cli import main
from dinodp.errors import InputError
from dinodp.families import FAMILIES
from dinodp.scans import AnomalyDetector
from dinodp.scans.detecting.onnx_export import Difference, ScoringGraph, compare, export_onnx, noise

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return healthy_folder(tmp_path_factory.mktemp("healthy"), 4)


def run(path, pixels):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(zip(("map", "patch_scores"), session.run(["map", "patch_scores"], {"pixels": pixels}), strict=True))


def real_slices(detector, tmp_path):
    """What the backbone sees of a volume with a lesion, float32 [n, 3, H, W], and the patch scores of prediction."""
    scorer = detector.fitted_.scorer
    scored = detector.score_scan(save(tmp_path / "x.nii.gz", head(7, lesion=True)))
    backbone = scorer.embedder.backbone
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (backbone.mean, backbone.std))
    pixels = [backbone.prepare(picture).numpy() * std + mean for picture in scored.prepared.pictures()]
    return np.stack(pixels) * np.float32(255), scored.patch_maps


@pytest.fixture(scope="module")
def detectors(healthy):
    """One fitted detector per method and score."""
    methods = {
        "dpmm": MIXTURE, "memory_bank": {"family": "memory_bank", "max_embeddings": 500},
        "k_means": {"family": "k_means", "components": 16, "epochs": 2, "normalise": False},
        "eb_mixture": {"family": "eb_mixture", "components": 16, "epochs": 3},
    }  # fmt: skip
    names = [(method, score) for method in methods for score in FAMILIES[method].SCORES]
    options = {**FAST, "resolution": 112}
    return {
        name: AnomalyDetector(**{**options, "method": methods[name[0]]}, score=name[1]).fit(healthy) for name in names
    }


def test_every_score_is_that_of_prediction(detectors):
    x = functional.normalize(torch.rand(200, 92, generator=torch.Generator().manual_seed(0)), dim=1)
    for detector in detectors.values():
        scorer = detector.fitted_.scorer
        expected = scorer.model.score(x[None, None], pd.DataFrame())[scorer.settings.score_name].ravel()
        found = ScoringGraph(detector.fitted_).score(x).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.ptp(expected), rtol=1e-5)


@pytest.mark.parametrize("name", [("memory_bank", "cosine"), ("eb_mixture", "calibrated_distance")])
def test_maps_of_real_slices(name, detectors, tmp_path):
    detector = detectors[name]
    graph = export_onnx(detector.fitted_, tmp_path / "m.onnx")
    assert graph.differences["onnxruntime"].relative < 1e-3
    pixels, expected = real_slices(detector, tmp_path)
    found = run(tmp_path / "m.onnx", pixels)
    assert found["map"].shape == (len(pixels), 112, 112)
    alike = np.abs(found["patch_scores"] - expected) <= 1e-3 * max(1, np.ptp(expected))
    # which patches at the rim are black, the graph sees after resizing
    assert alike.mean() > 0.9 if detector.method["family"] == "eb_mixture" else alike.all()


def in_openvino(path, pixels):
    """As whoever has the file runs it, but in float32."""
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = model(pixels)
    return {name: found[name] for name in ("map", "patch_scores")}


@pytest.mark.parametrize("name", [("memory_bank", "cosine"), ("dpmm", "mahalanobis"), ("k_means", "euclidean")])
def test_openvino_runs_the_file_to_the_maps_of_onnxruntime(name, detectors, tmp_path):
    graph = export_onnx(detectors[name].fitted_, tmp_path / "m.onnx")
    pixels = real_slices(detectors[name], tmp_path)[0]
    expected, found = run(tmp_path / "m.onnx", pixels), in_openvino(tmp_path / "m.onnx", pixels)
    for output, values in expected.items():
        assert np.abs(found[output] - values).max() <= 1e-3 * max(1, np.ptp(values))
    assert graph.differences["OpenVINO"].relative < 1e-3


def test_without_openvino_the_check_is_onnxruntimes(detectors, tmp_path, monkeypatch):
    fitted = detectors["dpmm", "cosine"].fitted_
    assert "OpenVINO" in export_onnx(fitted, tmp_path / "m.onnx").differences
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert {*compare(fitted, tmp_path / "m.onnx", noise(1, (112, 112)))} == {"onnxruntime"}


def test_vit_tiny(shared, healthy, tmp_path):
    """Position embeddings, several layers, dynamic batch, opset, what the file says of itself."""
    weights = str(shared / "weights/vit-tiny-patch16-224")
    options = {**FAST, "backbone": weights, "resolution": 96, "layers": (4, 6), "slice_step": 8}
    detector = AnomalyDetector(**options).fit(healthy)
    detector.save(tmp_path / "m.h5")
    assert main(["export", str(tmp_path / "m.h5"), "--onnx", str(tmp_path / "m.onnx")]) == 0
    pixels, expected = real_slices(detector, tmp_path)
    for batch in (1, 2, 5):
        found = run(tmp_path / "m.onnx", pixels[:batch])
        assert found["map"].shape == (batch, 96, 96)
        assert np.abs(found["patch_scores"] - expected[:batch]).max() <= 1e-3 * np.ptp(expected)
    fast = in_openvino(tmp_path / "m.onnx", pixels)["patch_scores"]
    assert np.abs(fast - expected).max() <= 1e-3 * np.ptp(expected)
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    says = {item.key: item.value for item in model.metadata_props}
    assert says["score"] == "cosine"
    assert json.loads(says["thresholds"]) == detector.fitted_.calibration.thresholds
    assert "no diagnosis" in says["note"]


def test_pictures_that_are_not_square(detectors, tmp_path):
    fitted = detectors["dpmm", "mahalanobis"].fitted_
    graph = export_onnx(fitted, tmp_path / "m.onnx", (112, 140))
    assert graph.size == (112, 140)
    assert graph.differences["onnxruntime"].relative < 1e-3
    found = run(tmp_path / "m.onnx", np.zeros((1, 3, 112, 140), np.float32))
    assert found["patch_scores"].shape == (1, 8, 10)
    with pytest.raises(InputError, match="112 x 100 pixels do not divide into patches of 14 pixels"):
        export_onnx(fitted, tmp_path / "n.onnx", (112, 100))


@pytest.mark.parametrize("engine", ["onnxruntime", "OpenVINO"])
def test_a_graph_that_differs_is_not_written(engine, detectors, tmp_path, monkeypatch):
    monkeypatch.setattr("dinodp.scans.detecting.onnx_export._write", lambda graph, path, *_: path.write_bytes(b""))
    found = {"onnxruntime": Difference(0.0, 0.0), engine: Difference(0.01, 1.0)}
    monkeypatch.setattr("dinodp.scans.detecting.onnx_export.compare", lambda *_: found)
    with pytest.raises(InputError, match=f"in {engine} differ from PyTorch's by 0.01 of their range, more than 0.001"):
        export_onnx(detectors["dpmm", "cosine"].fitted_, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(detectors, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r'Export needs onnxruntime, .* pip install -e "\.\[onnx\]"'):
        export_onnx(detectors["dpmm", "cosine"].fitted_, tmp_path / "m.onnx")


WITHOUT_GRAPH = [{"family": "gaussian"}, {**MIXTURE, "pca_dims": 8}, {**MIXTURE, "covariance": "full"}]


@pytest.mark.parametrize("method", WITHOUT_GRAPH)
def test_a_model_without_a_graph_is_refused(method, healthy, tmp_path):
    detector = AnomalyDetector(**{**FAST, "method": {**method, "reg_covar": 1e-2}}).fit(healthy)
    with pytest.raises(InputError, match="Only mixtures of diagonal covariance, k-means and memory banks"):
        export_onnx(detector.fitted_, tmp_path / "m.onnx")
