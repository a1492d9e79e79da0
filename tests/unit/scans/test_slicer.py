"""The script for 3D Slicer, run on Slicer's own libraries where `pip install slicer-core` brought them."""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from project_copy import ROOT
from scan_phantoms import AFFINE, FAST_FIT, FLIPPED, LESION_AT, WINDOW, head, healthy_folder, reoriented, save

from dinodp.cli import main

pytest.importorskip("slicer")
PLACE = (AFFINE @ [*LESION_AT, 1])[:3]  # of the lesion, mm


@pytest.fixture(scope="module", params=["as drawn", "axes permuted and flipped"])
def seen(request, tmp_path_factory):
    """What Slicer shows of a phantom with a lesion; the mask, colours and window that it was given."""
    folder = tmp_path_factory.mktemp("slicer")
    volume = head(7, lesion=True), AFFINE
    scan = save(folder / "a.nii.gz", *(volume if request.param == "as drawn" else reoriented(*volume, FLIPPED)))
    model, out = str(folder / "model.h5"), folder / "out"
    assert main(["fit", str(healthy_folder(folder / "healthy", 3)), "--out", model, *FAST_FIT, *WINDOW]) == 0
    assert main(["predict", str(scan), "--model", model, "--out", str(out), "--viewers", "--masks"]) == 0
    files = [scan, out / "maps/a.nii.gz", out / "masks/a.nii.gz"]
    command = [sys.executable, ROOT / "tests/slicer_application.py", folder / "seen.npz", ",".join(map(str, PLACE))]
    subprocess.run([*command, out / "viewers/open_in_slicer.py", *files], check=True, cwd=folder)
    table = np.loadtxt(out / "viewers/anomaly.ctbl", usecols=(2, 3, 4))
    window = dict(line.split() for line in (out / "viewers/window.txt").read_text().splitlines())
    return dict(np.load(folder / "seen.npz")), nib.load(files[2]), table, window


@pytest.mark.parametrize("view", ["Red", "Yellow", "Green"])
def test_the_map_lies_over_the_lesion_in_its_brightest_colour(seen, view):
    """0.6 of the colour, 0.4 of the scan; also where scores exceed 32767, Slicer's upper threshold of a new volume."""
    picture, (row, column) = seen[0][view].astype(float), seen[0][f"{view}_place"]
    scan_grey = (picture[row, column] - 0.6 * seen[2][-1]) / 0.4
    assert np.ptp(scan_grey) < 5
    assert 0 <= scan_grey.mean() <= 258


def test_the_patients_right_is_on_the_left_and_the_rest_of_the_scan_is_grey(seen):
    coloured = np.ptp(seen[0]["Red"].astype(int), axis=-1) > 10
    assert coloured[:, :150].sum() > 3 * coloured[:, 150:].sum()
    grey = seen[0]["Red"][~coloured]
    assert (grey.max(axis=-1) > 30).sum() > 5000


def test_the_mask_is_a_segment_at_its_place(seen):
    voxels = np.argwhere(np.asarray(seen[1].dataobj))
    centre = nib.affines.apply_affine(seen[1].affine, voxels).mean(axis=0)
    assert seen[0]["segment_voxels"] == len(voxels)
    assert np.allclose(seen[0]["segment_centre"], centre, atol=1e-3)


def test_the_window_is_that_of_the_files(seen):
    assert np.allclose(seen[0]["window"], [float(seen[3][name]) for name in ("low", "high")])
