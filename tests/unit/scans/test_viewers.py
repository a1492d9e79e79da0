"""Files for viewers: formats, and the scripts with stand-ins for the viewers, which record what they are asked."""

import os
import runpy
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from scan_phantoms import FAST_FIT, WINDOW, head, healthy_folder, save

from dinodp import store
from dinodp.cli import main


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewers")
    model, scan = folder / "model.h5", save(folder / "new/a.nii.gz", head(7, lesion=True))
    assert main(["fit", str(healthy_folder(folder / "healthy", 3)), "--out", str(model), *FAST_FIT, *WINDOW]) == 0
    options = ["--model", str(model), "--out", str(folder / "out"), "--viewers", "--masks"]
    assert main(["predict", str(scan), *options]) == 0
    return folder / "out"


def window_of(out):
    return {key: float(value) for key, value in map(str.split, (out / "viewers/window.txt").read_text().splitlines())}


def test_the_window_is_that_of_the_gallery(out):
    window = window_of(out)
    thresholds = store.read_state(out.parent / "model.h5", "detector")[0]["calibration"]["thresholds"]
    assert window["threshold"] == pytest.approx(thresholds["fpr01"])
    assert window["low"] == pytest.approx(thresholds["fpr10"])
    assert window["low"] < window["threshold"] < window["high"]


def test_colour_tables(out):
    """FSLeyes: 3 numbers from 0 to 1. Slicer: number, name, 4 from 0 to 255. Both from dark to bright."""
    plain = np.loadtxt(out / "viewers/anomaly.cmap")
    assert plain.shape == (256, 3)
    assert plain.min() >= 0
    assert plain.max() <= 1
    table = np.loadtxt(out / "viewers/anomaly.ctbl")
    assert np.array_equal(table[:, 0], np.arange(256))
    assert np.allclose(table[:, 2:5] / 255, plain, atol=1e-3)
    assert plain[-1].sum() > plain[0].sum()
    labels = [line.split() for line in (out / "viewers/labels.ctbl").read_text().splitlines()]
    assert [(row[0], row[1], row[-1]) for row in labels] == [("0", "background", "0"), ("1", "anomalous", "255")]


def test_label_descriptions_of_itk_snap(out):
    """Index, red, green, blue, opacity, whether it is shown, whether as mesh, name in quotes."""
    rows = [line.split(None, 7) for line in (out / "viewers/labels.txt").read_text().splitlines()]
    assert [(row[0], row[4:]) for row in rows] == [
        ("0", ["0", "0", "0", '"Clear Label"']), ("1", ["1", "1", "1", '"anomalous"'])
    ]  # fmt: skip


def test_the_script_for_slicer(out, monkeypatch):
    slicer = mock.MagicMock()
    slicer.util.loadVolume().GetImageData().GetScalarRange.return_value = (-5.0, 1e6)
    slicer.util.loadVolume.reset_mock()
    monkeypatch.setitem(sys.modules, "slicer", slicer)
    monkeypatch.setattr(sys, "argv", ["open_in_slicer.py", "scan.nii.gz", "map.nii.gz", "mask.nii.gz"])
    runpy.run_path(str(out / "viewers/open_in_slicer.py"))
    assert [call.args[0] for call in slicer.util.loadVolume.call_args_list] == ["scan.nii.gz", "map.nii.gz"]
    slicer.util.loadColorTable.assert_called_once_with(str(out / "viewers/anomaly.ctbl"))
    slicer.util.loadSegmentation.assert_called_once_with("mask.nii.gz")
    low, high = slicer.util.loadVolume().GetDisplayNode().SetWindowLevelMinMax.call_args.args
    assert (low, high) == (window_of(out)["low"], window_of(out)["high"])
    assert slicer.util.loadVolume().GetDisplayNode().SetThreshold.call_args.args == (low, 1e6)


@pytest.mark.parametrize("mask", [[], ["a mask.nii.gz"]], ids=["map", "map and mask"])
def test_the_script_for_fsleyes(out, tmp_path, mask):
    stand_in = tmp_path / "fsleyes"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = [out / "viewers/open_in_fsleyes.sh", "a scan.nii.gz", "map.nii.gz", *mask]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.splitlines()
    assert said[:2] == ["a scan.nii.gz", "map.nii.gz"]
    at = said.index("--displayRange")
    assert [float(said[at + 1]), float(said[at + 2])] == [window_of(out)["low"], window_of(out)["high"]]
    assert ("a mask.nii.gz" in said) == bool(mask)


def test_they_go_with_the_prediction(out):
    """--overwrite without --viewers leaves none behind."""
    options = ["--model", str(out.parent / "model.h5"), "--out", str(out), "--overwrite"]
    assert main(["predict", str(out.parent / "new"), *options]) == 0
    assert not list((out / "viewers").glob("*"))
