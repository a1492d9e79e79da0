"""Round trip on real brains (OASIS) with ViT-Tiny, reduced: fewer scans and slices, small pictures.

ViT-Tiny stands in for DINOv2: what is tested is that maps lie where they should, not how well anything is detected.
"""

import os
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from scan_phantoms import ORIENTATIONS, oblique, reoriented, save
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from dinodp.cli import main

SCAN = "1010"
REDUCED = ["--layers", "8", "--resolution", "192", "--slice-step", "16"]
REDUCED += ["--method", "dpmm", "components=60", "epochs=4"]


@pytest.fixture(scope="module")
def oasis(shared, tmp_path_factory):
    """A model fitted on four healthy brains, in a folder with one new volume and its lesion mask."""
    folder, data = tmp_path_factory.mktemp("oasis"), shared / "data/oasis_t1"
    (folder / "healthy").mkdir()
    for path in sorted((data / "train").glob("*.nii.gz"))[:4]:
        shutil.copy(path, folder / "healthy")
    model, weights = str(folder / "model.h5"), str(shared / "weights/vit-tiny-patch16-224")
    assert main(["fit", str(folder / "healthy"), "--out", model, "--backbone", weights, *REDUCED]) == 0
    for kind in ("t1", "seg"):
        shutil.copy(data / f"test/{SCAN}_{kind}.nii.gz", folder / f"{kind}.nii.gz")
    return folder


def predict(oasis, path):
    """Map of a volume through files and command line."""
    out = path.parent / f"{path.name}.out"
    arguments = ["predict", str(path), "--model", str(oasis / "model.h5"), "--out", str(out), "--slice-step", "8"]
    assert main(arguments) == 0
    found, scan = nib.load(out / "maps/scan.nii.gz"), nib.load(path)
    assert found.shape == scan.shape
    np.testing.assert_allclose(found.affine, scan.affine, atol=1e-6)
    return found


def at(image, places):
    """Values of an image at places [n, 3] in mm."""
    voxel = nib.affines.apply_affine(np.linalg.inv(image.affine), places)
    return ndimage.map_coordinates(np.asarray(image.dataobj), voxel.T, order=1, mode="nearest")


@pytest.fixture(scope="module")
def upright(oasis):
    """The volume as int16 on canonical axes, its affine, its map, places of lesion and of other brain in mm."""
    image, mask = (nib.as_closest_canonical(nib.load(oasis / f"{kind}.nii.gz")) for kind in ("t1", "seg"))
    voxels = np.round(image.get_fdata()).astype(np.int16)
    assert voxels.max() > 255
    found = predict(oasis, save(oasis / "upright/scan.nii.gz", voxels, image.affine))
    lesion = np.asarray(mask.dataobj) > 0
    return voxels, image.affine, found, np.argwhere(lesion)[::50], np.argwhere((voxels > 0) & ~lesion)[::2000]


def test_the_map_lies_on_the_lesion(upright):
    _, affine, found, lesion, other = upright
    scores = [at(found, nib.affines.apply_affine(affine, places)) for places in (lesion, other)]
    labels = np.repeat([1, 0], [len(lesion), len(other)])
    assert roc_auc_score(labels, np.concatenate(scores)) > 0.7


@pytest.mark.parametrize("number", [5, 43])
def test_flipped_permuted_and_oblique_it_is_the_same_map(oasis, upright, number):
    voxels, affine, expected, lesion, other = upright
    turned = oblique(affine)
    stored, placed = reoriented(voxels, turned, ORIENTATIONS[number])
    found = predict(oasis, save(oasis / f"turned{number}/scan.nii.gz", stored, placed))
    canonical = nib.as_closest_canonical(found)
    np.testing.assert_allclose(canonical.get_fdata(), expected.get_fdata(), atol=0.05)  # nats, of a range of hundreds
    for places in (lesion, other):  # the same tissue, at its new place in mm
        old, new = (nib.affines.apply_affine(matrix, places) for matrix in (affine, turned))
        np.testing.assert_allclose(at(found, new), at(expected, old), atol=0.1)


def test_anisotropic_voxels_stored_in_16_bits(oasis, upright):
    """Every second row is missing, values use all 16 bits with a slope: the map overlays the same tissue in mm."""
    voxels, affine, expected, lesion, other = upright
    image = nib.Nifti1Image(voxels[:, ::2].astype(np.float32), affine @ np.diag([1, 2, 1, 1]))
    image.set_data_dtype(np.uint16)
    (oasis / "deep").mkdir()
    nib.save(image, oasis / "deep/scan.nii.gz")
    stored = nib.load(oasis / "deep/scan.nii.gz")
    assert stored.dataobj.slope < 0.1
    assert np.asarray(stored.dataobj.get_unscaled()).max() > 60000
    found = predict(oasis, oasis / "deep/scan.nii.gz")
    scores = [at(found, nib.affines.apply_affine(affine, places)) for places in (lesion, other)]
    assert roc_auc_score(np.repeat([1, 0], [len(lesion), len(other)]), np.concatenate(scores)) > 0.65
    places = nib.affines.apply_affine(affine, np.concatenate([lesion, other]))
    assert np.corrcoef(at(found, places), at(expected, places))[0, 1] > 0.8


def test_example_script(oasis, shared, root):
    """The example, as a user runs it."""
    (oasis / "new").mkdir()
    shutil.copy(oasis / "t1.nii.gz", oasis / "new/a_t1.nii.gz")
    shutil.copy(oasis / "seg.nii.gz", oasis / "new/a_seg.nii.gz")  # no scan
    (oasis / "new/b_t1.nii.gz").write_bytes(b"x")
    command = [
        sys.executable, root / "examples/own_scans.py", oasis / "healthy", oasis / "new", "--out", oasis / "example",
        "--backbone", shared / "weights/vit-tiny-patch16-224", "--layer", "8", "--resolution", "96", "--method",
        "dpmm", "components=40", "epochs=2", "--slice-step", "20", "--pattern", "*_t1.nii.gz",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(root / "scripts")}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].startswith("a_t1 ")
    assert "like the healthy ones" in lines[1]
    assert "b_t1.nii.gz is not a readable NIfTI volume" in lines[2]
    assert "Traceback" not in done.stderr
    assert nib.load(oasis / "example/a_t1.nii.gz").shape == nib.load(oasis / "t1.nii.gz").shape
    assert {path.name for path in (oasis / "example").iterdir()} == {"a_t1.nii.gz", "model.h5", "model.card.md"}
