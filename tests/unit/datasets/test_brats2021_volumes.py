"""BMAD's brain slices rebuilt from real volumes of BraTS's shape (renamed copies), and broken ones refused."""

import json
import shutil

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pytest

from dinodp.datasets.manifest import read_manifest
from dinodp.datasets.sources import prepare_dataset
from dinodp.datasets.sources.brats2021_volumes import PATIENTS, compare_copies
from dinodp.errors import InputError
from dinodp.images import read_mask
from dinodp.jobs.files import read_json

LISTS = json.loads(PATIENTS.read_text())
# Patients of the real volumes: one each of the published lists, three that are in none (anomalous).
NAMES = [LISTS["train_patients"][0], LISTS["valid_normal_patients"][0], LISTS["test_normal_patients"][0]]
NAMES += ["90001", "90002", "90003"]


@pytest.fixture(scope="module")
def volumes(shared, tmp_path_factory):
    """The six BraTS 2015 volumes under BraTS2021's names; normal patients get an empty segmentation in a few slices."""
    root = tmp_path_factory.mktemp("brats2021")
    for index, name in enumerate(NAMES):
        source = shared / f"data/brats2015/brats_2013_pat000{index + 1}_1"
        folder = root / f"BraTS2021_{name}"
        folder.mkdir()
        shutil.copy(source / "flair.nii.gz", folder / f"BraTS2021_{name}_flair.nii.gz")
        image = nib.load(source / "seg.nii.gz")
        labels = np.asarray(image.dataobj).astype(np.int16)
        labels[:, :, 60:63] = 0 if index < 3 else labels[:, :, 60:63]
        labels[100, 100, 63:100] = 1 if index < 3 else 0
        labels[labels == 3] = 2  # BraTS2021 has the labels 0, 1, 2, 4
        nib.Nifti1Image(labels, image.affine).to_filename(folder / f"BraTS2021_{name}_seg.nii.gz")
    return root


@pytest.fixture(scope="module")
def rebuilt(volumes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rebuilt")
    options = {"source": "brats2021_volumes", "root": str(volumes), "allow_missing": True}
    return read_manifest(prepare_dataset("x", options, folder)), folder


def test_slices_and_splits_are_bmads(rebuilt):
    frame, _ = rebuilt
    counts = frame.groupby(["split", "label"]).size().to_dict()
    assert counts == {
        ("train", "normal"): 3,
        ("valid", "normal"): 3,
        ("valid", "anomalous"): 4,
        ("test", "normal"): 3,
        ("test", "anomalous"): 10,
    }
    assert set(frame[frame["label"] == "normal"]["slice"]) == {"60", "61", "62"}
    valid = frame[(frame["split"] == "valid") & (frame["label"] == "anomalous")]
    assert set(valid["slice"]) == {"60", "70", "80", "90"}
    test = frame[(frame["split"] == "test") & (frame["label"] == "anomalous")]
    assert set(test["slice"]) == {"60", "68", "76", "84", "92"}


def test_bytes_are_those_of_matplotlib(volumes, rebuilt, tmp_path):
    frame, folder = rebuilt
    row = frame[(frame["split"] == "test") & (frame["label"] == "anomalous")].iloc[0]
    name = f"BraTS2021_{row['subject']}"
    for kind, column in (("flair", "image"), ("seg", "mask")):
        stored = np.asarray(nib.load(volumes / name / f"{name}_{kind}.nii.gz").dataobj)
        plt.imsave(tmp_path / "expected.png", stored[:, :, int(row["slice"])].astype(np.float32), cmap="bone")
        assert (tmp_path / "expected.png").read_bytes() == (folder / row[column]).read_bytes()


def test_masks_have_bmads_grey_values(rebuilt):
    frame, _ = rebuilt
    found = {int(value) for mask in frame["mask"] if mask for value in np.unique(read_mask(mask))}
    assert found <= {0, 58, 122, 255}
    assert {0, 255} < found


def test_a_released_copy_decides_and_is_compared(volumes, rebuilt, tmp_path):
    copy = tmp_path / "BraTS2021_slice"
    shutil.copytree(rebuilt[1] / "BraTS2021_slice", copy)
    chosen = {path.name.split("_")[0] for path in (copy / "valid/Ungood/img").iterdir()}
    image = next((copy / "test/Ungood/img").iterdir())
    plt.imsave(image, np.eye(240), cmap="bone")
    next((copy / "train/good").iterdir()).unlink()
    options = {"source": "brats2021_volumes", "root": str(volumes), "allow_missing": True, "seed": 5}
    frame = read_manifest(prepare_dataset("x", {**options, "released_copy": str(copy)}, tmp_path / "out"))
    valid = frame[(frame["split"] == "valid") & (frame["label"] == "anomalous")]
    assert set(valid["subject"]) == chosen
    n_files = len(frame) + int((frame["mask"] != "").sum())
    expected = {"equal": n_files - 2, "different": 1, "only_here": 1, "only_there": 0}
    assert read_json(tmp_path / "out/comparison.json") == expected
    assert compare_copies(tmp_path / "out/BraTS2021_slice", copy) == expected


def test_orientation_on_disk_does_not_matter(volumes, rebuilt, tmp_path):
    root = tmp_path / "turned"
    for folder in volumes.iterdir():
        for path in folder.iterdir():
            image = nib.as_closest_canonical(nib.load(path))
            (root / folder.name).mkdir(parents=True, exist_ok=True)
            image.to_filename(root / folder.name / path.name)
        if folder.name.endswith(NAMES[0]):
            break
    kept = root / f"BraTS2021_{NAMES[0]}"
    for folder in list(root.iterdir()):
        if folder != kept:
            shutil.rmtree(folder)
    for name in NAMES[1:3]:
        shutil.copytree(volumes / f"BraTS2021_{name}", root / f"BraTS2021_{name}")
    options = {"source": "brats2021_volumes", "root": str(root), "allow_missing": True}
    frame = read_manifest(prepare_dataset("x", options, tmp_path / "out"))
    before = rebuilt[0].set_index(["subject", "slice"])["image_sha256"]
    after = frame.set_index(["subject", "slice"])["image_sha256"]
    assert after.to_dict() == before.loc[after.index].to_dict()


@pytest.fixture
def tiny(tmp_path):
    """One small volume under a listed patient's name."""
    folder = tmp_path / f"raw/BraTS2021_{NAMES[0]}"
    folder.mkdir(parents=True)
    return folder


def write(folder, kind, values):
    nib.Nifti1Image(values, np.diag([-1.0, -1, 1, 1])).to_filename(folder / f"{folder.name}_{kind}.nii.gz")


@pytest.mark.parametrize(
    ("build", "options", "sentence"),
    [
        (
            lambda f: None,
            {"allow_missing": False},
            "lacks 624 of 625 patients with normal slices, the first is BraTS2021",
        ),
        (lambda f: None, {}, "there is no .*_flair.nii.gz: every patient needs _flair.nii.gz and _seg.nii.gz"),
        (lambda f: write(f, "flair", np.ones((4, 4, 4))), {}, "has the shape 4 x 4 x 4; volumes of BraTS2021 have 240"),
        (lambda f: write(f, "flair", np.full((4, 4, 4), np.nan)), {}, "holds 64 voxels that are not finite"),
        (lambda f: write(f, "flair", np.zeros((240, 240, 155), np.int16)), {}, "there is no .*_seg.nii.gz"),
        (lambda f: f.rmdir(), {}, "lacks 625 of 625 patients"),
        (lambda f: shutil.rmtree(f.parent), {}, r"there is no folder .*raw \(key root\)"),
    ],
)
def test_what_is_wrong_is_said(tiny, tmp_path, build, options, sentence):
    build(tiny)
    entry = {"source": "brats2021_volumes", "root": str(tmp_path / "raw"), "allow_missing": True, **options}
    with pytest.raises(InputError, match=sentence):
        prepare_dataset("x", entry, tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
