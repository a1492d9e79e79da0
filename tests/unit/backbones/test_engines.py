"""OpenVINO computes what PyTorch computes; what it cannot is said in one sentence."""

import importlib.util
import logging
import socket
from contextlib import contextmanager

import pytest
import torch
from scan_phantoms import head, healthy_folder, save

from dinodp.backbones import engines, load_backbone
from dinodp.cli import main
from dinodp.errors import InputError
from dinodp.scans import AnomalyDetector

openvino = pytest.importorskip("openvino")
has_bfloat16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
FAST = {"resolution": 64, "layers": [1, -1], "method": "memory_bank", "window": (0, 1000), "held_out": 0.4}


def pixels(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layers", [[-1], [1, -1]])
def test_float32_agrees_with_pytorch(tiny, layers):
    plain, fast = (load_backbone(str(tiny), layers=layers, engine=engine) for engine in ("torch", "openvino"))
    for shape in ((3, 3, 64, 96), (1, 3, 64, 96), (2, 3, 48, 48)):  # other numbers of images, and another size
        expected, found = plain.embed(pixels(*shape)), fast.embed(pixels(*shape))
        assert found.dtype == torch.float32
        assert torch.allclose(found, expected, atol=2e-4 * float(expected.abs().max()))
    assert torch.equal(fast.embed(pixels(2, 3, 48, 48)), found)
    assert fast.provenance() == {**plain.provenance(), "engine": "openvino"}


@pytest.mark.skipif(not has_bfloat16, reason="this CPU computes no bfloat16")
def test_bfloat16_is_close_and_not_the_same(tiny):
    exact, rough = (load_backbone(str(tiny), engine="openvino", dtype=dtype) for dtype in ("float32", "bfloat16"))
    x = pixels(2, 3, 64, 96)
    cosine = torch.nn.functional.cosine_similarity(exact.embed(x), rough.embed(x), dim=-1)
    assert cosine.mean() > 0.99
    assert not torch.equal(exact.embed(x), rough.embed(x))
    assert rough.embed(x).dtype == torch.float32


def test_as_many_threads_as_pytorch_has(tiny, monkeypatch):
    seen = []
    real = openvino.Core.compile_model

    def watched(core, model, device, options):
        seen.append(options["INFERENCE_NUM_THREADS"])
        return real(core, model, device, options)

    monkeypatch.setattr(openvino.Core, "compile_model", watched)
    backbone = load_backbone(str(tiny), engine="openvino")
    backbone.embed(pixels(1, 3, 64, 64))
    backbone.embed(pixels(2, 3, 64, 64))
    assert seen == [torch.get_num_threads()]


def test_nothing_is_sent_to_anybody(tiny, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    if importlib.util.find_spec("openvino_telemetry"):
        import openvino_telemetry

        monkeypatch.setattr(openvino_telemetry.Telemetry, "send_event", refused)
        monkeypatch.setattr(openvino_telemetry.Telemetry, "start_session", refused)
    load_backbone(str(tiny), engine="openvino").embed(pixels(1, 3, 64, 64))


def expect_error(words, *name, **options):
    with pytest.raises(InputError, match=words):
        load_backbone(*name, **options)


def test_what_openvino_cannot_do_is_said(tiny, monkeypatch):
    expect_error("computes float32 or bfloat16 on a CPU, not float16", str(tiny), engine="openvino", dtype="float16")
    expect_error("engine", "classical", engine="openvino")
    expect_error("engine", str(tiny), engine="onnx")
    monkeypatch.setattr(engines, "_capabilities", lambda: ["FP32"])
    expect_error("This CPU does not compute bfloat16", str(tiny), engine="openvino", dtype="bfloat16")
    with pytest.raises(InputError, match="computes on CPUs, not on cuda:0"):
        engines.OpenVinoTokens(torch.nn.Identity(), "float32", torch.device("cuda:0"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    expect_error(r"pip install 'dinodp\[openvino\]'", str(tiny), engine="openvino")


@pytest.mark.parametrize(("installed", "chosen"), [(True, "openvino"), (False, "torch")])
def test_the_fastest_is_chosen_by_what_is_here(tiny, monkeypatch, installed, chosen):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(engines.OpenVinoTokens, "__init__", lambda *_: None)
    found = load_backbone(str(tiny), engine="auto")
    assert (found.engine, found.dtype) == (chosen, "float32")
    assert load_backbone(str(tiny), engine="auto", dtype="bfloat16").dtype == "bfloat16"
    assert "engine" not in load_backbone("classical", engine="auto").provenance()


def test_a_model_is_used_with_the_engine_of_its_fit(tiny, tmp_path, monkeypatch, capsys):
    folder, new = healthy_folder(tmp_path / "healthy"), save(tmp_path / "new/a.nii.gz", head(9, lesion=True))
    fitted = AnomalyDetector(str(tiny), engine="openvino", **FAST).fit(folder)
    fitted.save(tmp_path / "m.h5")
    same = AnomalyDetector.load(tmp_path / "m.h5")
    assert same.fitted_.scorer.embedder.backbone.engine == "openvino"
    plain = AnomalyDetector.load(tmp_path / "m.h5", engine="torch")
    assert plain.fitted_.scorer.embedder.backbone.engine == "torch"
    assert same.anomaly_map(new) == pytest.approx(plain.anomaly_map(new), abs=1e-4)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    command = ["predict", str(new), "--model", str(tmp_path / "m.h5"), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "take the engine torch" in capsys.readouterr().err
    assert main([*command, "--engine", "torch"]) == 0


def test_an_unfinished_prediction_goes_on_with_the_same_engine_only(tmp_path):
    from dinodp.scans.writing.prediction import PredictionOptions
    from dinodp.scans.writing.unfinished import job_of

    (tmp_path / "m.h5").write_bytes(b"model")
    jobs = {
        job_of(tmp_path / "m.h5", PredictionOptions(), {"engine": engine, "dtype": dtype})
        for engine in (None, "torch", "openvino") for dtype in (None, "bfloat16")
    }  # fmt: skip
    assert len(jobs) == 6


def test_the_conversion_says_nothing_and_others_are_heard(tiny, capfd, caplog, monkeypatch):
    real, before = engines._quiet, list(logging.getLogger().handlers)

    @contextmanager
    def while_somebody_speaks():
        with real():
            logging.getLogger("dinodp").warning("heard")
            yield

    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(engines, "_quiet", while_somebody_speaks)
    load_backbone(str(tiny), engine="openvino").embed(pixels(1, 3, 64, 64))
    assert [record.getMessage() for record in caplog.records] == ["heard"]
    assert logging.getLogger().handlers == before
    assert "decomp" not in capfd.readouterr().err
