"""A BIDS tree in and out: fit on its controls, predict into derivatives, which the BIDS validator reads."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scan_phantoms import FAST_FIT, LESION_AT, WINDOW, bids_tree

from dinodp import store
from dinodp.cli import main
from dinodp.scans.reading.folder import find_scans

VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")
T1 = ["--bids", "suffix=T1w"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return bids_tree(tmp_path_factory.mktemp("bids") / "data")


@pytest.fixture(scope="module")
def model(root):
    path = root.parent / "model.h5"
    controls = ["--participants", "group=control"]
    assert main(["fit", str(root), "--out", str(path), *T1, *controls, *FAST_FIT, *WINDOW]) == 0
    return path


@pytest.fixture(scope="module")
def derived(root, model):
    out = root / "derivatives/dinodp"
    options = ["--derivatives", "--masks", "--calibrated", "--overlays"]
    assert main(["predict", str(root), *T1, "session=1", "--model", str(model), "--out", str(out), *options]) == 0
    return out


def test_sessions_of_a_participant_are_one_subject(model):
    origin = store.read_state(model, "detector")[0]["origin"]
    assert len(origin["scans_sha256"]) == 7  # of six controls
    settings = store.read_state(model, "detector")[0]["settings"]
    assert settings["subject_pattern"].startswith("(?P<subject>sub-")


def test_maps_lie_beside_the_names_of_their_scans(root, derived):
    stem = "sub-07/ses-1/anat/sub-07_ses-1_acq-mprage"
    scan = nib.load(root / f"{stem}_T1w.nii.gz")
    found, tail, mask = (
        nib.load(derived / f"{stem}_desc-{end}.nii.gz") for end in ("anomaly_T1w", "tail_T1w", "anomaly_mask")
    )
    for image in (found, tail, mask):
        assert image.shape == scan.shape
        assert np.allclose(image.affine, scan.affine)
    peak = np.unravel_index(found.get_fdata().argmax(), found.shape)
    assert np.linalg.norm(np.subtract(peak, LESION_AT)) < 8
    assert set(np.unique(mask.get_fdata())) == {0.0, 1.0}
    said = json.loads((derived / f"{stem}_desc-anomaly_mask.json").read_text())
    assert said["Sources"] == [f"bids:source:{stem}_T1w.nii.gz"]
    assert json.loads((derived / f"{stem}_desc-anomaly_T1w.json").read_text())["SkullStripped"] is False


def test_description_and_tables(derived):
    said = json.loads((derived / "dataset_description.json").read_text())
    assert said["DatasetType"] == "derivative"
    assert said["GeneratedBy"][0]["Name"] == "dinodp"
    assert said["SourceDatasets"] == [{"URL": "../.."}]
    table = pd.read_csv(derived / "sub-07/ses-1/sub-07_ses-1_scans.tsv", sep="\t")
    assert table["filename"].tolist() == ["anat/sub-07_ses-1_acq-mprage_desc-anomaly_T1w.nii.gz"]
    assert set(table) == set(json.loads((derived / "scans.json").read_text()))
    assert table["ml_above"][0] > 0


@pytest.mark.skipif(not VALIDATOR.is_file(), reason="the BIDS validator is not installed")
@pytest.mark.parametrize("place", [".", "derivatives/dinodp"])
def test_the_validator_finds_no_error(root, derived, place):
    """It reads headers, sidecars and tables as well as names."""
    done = subprocess.run([VALIDATOR, "--format", "json", root / place], capture_output=True, text=True, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    assert done.returncode == 0


def test_age_and_sex_give_groups_of_false_positives(root, derived, tmp_path):
    """evaluate reads the maps of derivatives, and participants.tsv as it is."""
    masks = tmp_path / "masks"
    for path in (root / "derivatives/lesions").rglob("*_mask.nii.gz"):
        masks.mkdir(exist_ok=True)
        (masks / path.name.replace("label-lesion_mask", "acq-mprage_T1w_mask")).symlink_to(path)
    table = tmp_path / "table.csv"
    options = ["--mask-suffix", "_mask", "--without-mask", "healthy", "--subject-pattern", "(?P<subject>sub-[0-9]+)"]
    metadata = ["--metadata", str(root / "participants.tsv"), "--resamples", "20", "--out", str(table)]
    assert main(["evaluate", str(derived), "--masks", str(masks), *options, *metadata]) == 0
    text = table.read_text()
    assert "sex" in text
    assert "age" in text


def test_a_second_prediction_replaces_the_first_one_only(root, model, tmp_path):
    out = tmp_path / "out"
    command = ["predict", str(root), "--model", str(model), "--out", str(out), "--derivatives"]
    assert main([*command, *T1, "session=2"]) == 0
    (out / "sub-06/mine.txt").write_text("kept")
    assert main([*command, *T1, "session=1", "--participants", "group=patient", "--overwrite"]) == 0
    assert not list(out.glob("sub-06/ses-2/**/*.nii.gz"))
    assert (out / "sub-06/mine.txt").is_file()
    assert (out / "sub-07/ses-1/anat").is_dir()


def test_a_data_set_that_is_read_as_a_folder_is_said(root, caplog):
    assert len(find_scans(root / "derivatives/lesions")) == 2
    assert "lesions is a BIDS data set, of which all is read: --bids suffix=NAME chooses." in caplog.text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--participants", "group=patient"], "--participants chooses among those of a BIDS data set"),
        ([*T1, "--pattern", "*"], "--pattern and --bids both choose files: give one of them."),
        (["--derivatives"], "--derivatives needs scans of a BIDS data set: add --bids suffix=NAME."),
        ([*T1, "--derivatives", "."], "--derivatives are of one BIDS data set: give one root."),
    ],
)
def test_sentences(root, model, tmp_path, options, sentence, capsys):
    """The last one is given two roots."""
    second = [options.pop()] if options[-1] == "." else []
    given = ["predict", str(root), *second, "--model", str(model), "--out", str(tmp_path / "x"), *options]
    assert main(given) == 1
    assert sentence in capsys.readouterr().err
