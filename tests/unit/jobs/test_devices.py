"""Devices are stand-ins here: names without hardware; the processes and the locks are real."""

import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from dinodp.backbones.base import torch_device
from dinodp.errors import InputError
from dinodp.families.fit_job import FitJob
from dinodp.jobs import devices

JOB = """
import sys, time
from pathlib import Path
sys.path.insert(0, {scripts!r})
from dinodp.jobs.devices import take_free
name = ["A", "B"][take_free(["A", "B"], Path({folder!r}))]
with open({log!r}, "a", buffering=1) as log:
    log.write(f"{{time.monotonic()}} start {{name}}\\n")
    time.sleep({seconds})
    log.write(f"{{time.monotonic()}} end {{name}}\\n")
"""


@pytest.fixture
def start(root, tmp_path):
    """Start a process that takes one of two devices and holds it for a while."""
    processes = []

    def start(seconds):
        scripts, folder, log = (str(path) for path in (root / "scripts", tmp_path / "locks", tmp_path / "log"))
        code = JOB.format(scripts=scripts, folder=folder, log=log, seconds=seconds)
        processes.append(subprocess.Popen([sys.executable, "-c", code]))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def events(folder):
    log = folder / "log"
    lines = sorted(log.read_text().splitlines(), key=lambda line: float(line.split()[0])) if log.exists() else []
    return [tuple(line.split()[1:]) for line in lines]


def test_two_devices_are_never_used_twice(start, tmp_path):
    """Five processes at once for two devices."""
    assert [process.wait(60) for process in [start(0.5) for _ in range(5)]] == [0] * 5
    in_use, most = set(), 0
    for kind, name in events(tmp_path):
        if kind == "start":
            assert name not in in_use
            in_use.add(name)
        else:
            in_use.remove(name)
        most = max(most, len(in_use))
    assert len(events(tmp_path)) == 10
    assert most == 2


def test_a_killed_job_leaves_its_device_free(start, tmp_path):
    first, second = start(600), start(600)
    end = time.monotonic() + 60
    while len(events(tmp_path)) < 2:
        assert time.monotonic() < end, "two processes did not start"
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    assert start(0).wait(60) == 0
    assert second.poll() is None
    names = [name for kind, name in events(tmp_path) if kind == "start"]
    assert sorted(names[:2]) == ["A", "B"]


def test_jobs_of_slurm_do_not_wait_for_each_other(tmp_path, monkeypatch):
    """Two jobs that SLURM gave a GPU each may both call it 0."""
    for job in ("7", "8"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        assert devices.take_free(["0"], tmp_path) == 0
    assert len(list(tmp_path.iterdir())) == 2


def test_visible_devices_are_those_that_slurm_names(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-7f")
    assert devices.visible_devices() == ["2", "GPU-7f"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices.visible_devices() == ["0", "1", "2"]


def test_the_taken_device_becomes_the_current_one(tmp_path, monkeypatch):
    current = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [devices.take_device("cuda") for _ in range(2)] == ["cuda:0", "cuda:1"]
    assert current == [0, 1]


def test_a_device_that_cuda_leaves_out_is_not_taken(tmp_path, monkeypatch):
    current = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")  # CUDA shows one of them
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert devices.take_device("cuda") == "cuda:0"
    assert current == [0]
    assert [path.name for path in tmp_path.rglob("*.lock")] == ["machine-MIG-a.lock"]


def test_the_cpu_needs_no_lock(monkeypatch):
    monkeypatch.setattr(devices, "take_free", None)
    assert devices.take_device("cpu") == "cpu"


@pytest.mark.parametrize("named", ["", "-1", "NoDevFiles", "0"])
def test_no_gpu_is_told_in_one_sentence(monkeypatch, named):
    """Also where SLURM names one that torch's build for the CPU cannot see."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match=r"torch sees no CUDA device: set run\.device to cpu or auto"):
        devices.take_device("cuda")


@pytest.mark.parametrize(("count", "found"), [(0, "cpu"), (1, "cuda:0")])
def test_auto_is_a_gpu_where_there_is_one(tmp_path, monkeypatch, caplog, count, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    seen(monkeypatch, *["cuda"] * count)
    caplog.set_level("INFO", logger=devices.logger.name)
    monkeypatch.setattr(devices.logger, "propagate", True)
    assert devices.take_device("auto") == found
    assert ("Device cpu" if found == "cpu" else "Device 5 of 5") in caplog.text


def seen(monkeypatch, *kinds):
    """Have torch see one device of each of these kinds, and of no other."""
    for kind in ("cuda", "xpu"):
        monkeypatch.setattr(getattr(torch, kind), "device_count", lambda kind=kind: int(kind in kinds))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)


@pytest.mark.parametrize(
    ("kinds", "best"),
    [((), "cpu"), (("mps",), "mps"), (("mps", "xpu"), "xpu"), (("mps", "xpu", "cuda"), "cuda"), (("cuda",), "cuda")],
)
def test_auto_prefers_cuda_to_xpu_to_mps_to_the_cpu(tmp_path, monkeypatch, kinds, best):
    seen(monkeypatch, *kinds)
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    current = []
    for kind in ("cuda", "xpu"):
        monkeypatch.setattr(getattr(torch, kind), "set_device", lambda index, kind=kind: current.append(kind))
    assert torch_device("auto").type == devices.best_kind() == best
    assert devices.take_device("auto") == (f"{best}:0" if best in ("cuda", "xpu") else best)
    assert current == [best] * (best in ("cuda", "xpu"))
    assert len(list(tmp_path.rglob("*.lock"))) == len(current)  # jobs share the one of MPS


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_a_kind_that_is_asked_for_is_taken_or_told(monkeypatch, tmp_path, kind):
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    seen(monkeypatch, *{"cuda", "mps", "xpu"} - {kind})
    with pytest.raises(InputError, match=f"run.device is {kind}, but torch sees no {kind.upper()} device"):
        devices.take_device(kind)
    with pytest.raises(InputError, match=f"Device {kind} was asked for but 0 {kind.upper()} devices are visible"):
        torch_device(kind)
    seen(monkeypatch, kind)
    if kind != "mps":
        monkeypatch.setattr(getattr(torch, kind), "set_device", lambda index: None)
    assert torch.device(devices.take_device(kind)).type == torch_device(kind).type == kind


@pytest.mark.parametrize(
    ("device", "has_fp64", "found"),
    [
        ("cpu", True, "cpu"), ("cuda:1", True, "cuda:1"), ("mps", False, "cpu"), ("xpu:1", True, "xpu:1"),
        ("xpu", False, "cpu"),
    ],
)  # fmt: skip
def test_models_are_where_float64_is(monkeypatch, device, has_fp64, found):
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda name: SimpleNamespace(has_fp64=has_fp64))
    assert devices.device_of_models(device) == found


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_processes_share_no_fit_there(device):
    with pytest.raises(InputError, match=f"processes is 2, but run.device is {device}: processes share cuda or cpu"):
        FitJob("", "", "", "", "", {}, None, 0, device, 1).run(processes=2)


@pytest.mark.parametrize(
    ("files", "visible", "here"),
    [((), None, False), (("nvidiactl",), None, False), (("nvidia0",), None, True), (("nvidia0",), "", False)],
)
def test_a_gpu_is_seen_without_torch(tmp_path, monkeypatch, files, visible, here):
    monkeypatch.setattr(devices, "DEVICE_FILES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for name in files:
        (tmp_path / name).touch()
    assert devices.gpu_is_here() is here
