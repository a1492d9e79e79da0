"""Two modalities of one subject as two models whose tail probabilities are combined."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scan_phantoms import (
    AFFINE,
    FAST_FIT,
    ORIENTATIONS,
    head,
    healthy_folder,
    lesion_mask,
    photo,
    reoriented,
    save,
    save_photo,
)  # fmt: skip
from scipy.stats import chi2

from dinodp.cli import main
from dinodp.scans.combining import fisher
from dinodp.scans.measuring.predictions import Predictions


def test_the_rule_is_fishers():
    generator = np.random.default_rng(0)
    for k in (2, 3):
        parts = generator.uniform(1e-6, 1, size=(k, 1000)).astype(np.float32)
        expected = chi2.sf(-2 * np.log(parts.astype(float)).sum(axis=0), 2 * k)
        found = fisher(parts)
        np.testing.assert_allclose(10.0**-found, expected, rtol=1e-6)
        assert found.min() >= 0
    assert fisher([np.float32([1]), np.float32([1])])[0] == 0
    two = np.array([1e-5, 0.3], np.float32), np.array([0.2, 0.3], np.float32)
    q = (two[0] * two[1]).astype(float)
    np.testing.assert_allclose(10.0 ** -fisher(two), q * (1 - np.log(q)), rtol=1e-5)  # the closed form of two


def test_of_independent_models_the_combined_probabilities_are_uniform():
    parts = np.random.default_rng(1).uniform(size=(2, 100_000)).astype(np.float32)
    found = 10.0 ** -fisher(np.maximum(parts, 1e-7))
    for share in (0.01, 0.1, 0.5, 0.9):
        assert (found <= share).mean() == pytest.approx(share, abs=0.006)


def other_modality(voxels):
    """Dark where the first one is bright."""
    return np.where(voxels > 0, 900 - voxels.astype(int), 0).clip(0).astype(np.int16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The example of docs/own_scans.md: models of FLAIR and of T1, and predictions of two subjects, one with a lesion.

    The T1 scans are stored with other axes than the FLAIR scans, on the same grid.
    """
    place = tmp_path_factory.mktemp("two")
    healthy_folder(place / "healthy_flair", 5)
    for seed in range(5):
        save(place / f"healthy_t1/h{seed}.nii.gz", other_modality(head(seed)))
    for name, seed, lesion in (("ill", 7, True), ("well", 8, False)):
        flair = head(seed, lesion=lesion)
        save(place / f"new_flair/{name}_flair.nii.gz", flair)
        save(place / f"new_t1/{name}_t1.nii.gz", *reoriented(other_modality(flair), AFFINE, ORIENTATIONS[13]))
    save(place / "new_t1/only_t1.nii.gz", other_modality(head(9)))
    for kind in ("flair", "t1"):
        model = str(place / f"{kind}.h5")
        assert main(["fit", str(place / f"healthy_{kind}"), "--out", model, *FAST_FIT, "--window", "0", "900"]) == 0
        command = ["predict", str(place / f"new_{kind}"), "--model", model, "--out", str(place / kind), "--calibrated"]
        assert main([*command, "--force"]) == 0
    return place


@pytest.fixture(scope="module")
def both(folder):
    assert main(["combine", *command_of(folder), "--out", str(folder / "both")]) == 0
    return folder / "both"


def command_of(folder, *suffixes):
    return [str(folder / "flair"), str(folder / "t1"), "--suffixes", *(suffixes or ("_flair", "_t1"))]


def test_the_map_is_the_combination_voxel_by_voxel(folder, both):
    parts = [nib.as_closest_canonical(nib.load(folder / f"{kind}/tails/ill_{kind}.nii.gz")) for kind in ("flair", "t1")]
    flair, t1 = (part.get_fdata() for part in parts)
    found, tail = (nib.load(both / f"{place}/ill.nii.gz") for place in ("maps", "tails"))
    np.testing.assert_allclose(found.affine, AFFINE)
    scored = found.get_fdata() >= 0
    assert scored.any()
    assert (found.get_fdata()[~scored] == -1).all()
    assert (tail.get_fdata()[~scored] == 1).all()
    expected = chi2.sf(-2 * np.log(flair * t1), 4)
    np.testing.assert_allclose(tail.get_fdata()[scored], expected[scored], rtol=1e-4)
    np.testing.assert_allclose(found.get_fdata()[scored], -np.log10(expected[scored]), atol=1e-4)
    assert 0 < tail.get_fdata().min() < tail.get_fdata().max() <= 1


def test_a_combination_is_evaluated_like_a_prediction(folder, both, capsys):
    assert Predictions.read(both).names == ["ill", "well"]  # one is there of T1 only
    rows = pd.read_csv(both / "scans.csv").set_index("scan")
    assert rows["score"]["ill"] > rows["score"]["well"]
    assert rows["ml_above"]["ill"] == pytest.approx(8e-3 * (nib.load(both / "maps/ill.nii.gz").get_fdata() > 2).sum())
    save(folder / "masks/ill.nii.gz", lesion_mask().astype(np.uint8))
    out = folder / "table.csv"
    command = ["evaluate", str(both), "--masks", str(folder / "masks"), "--without-mask", "healthy", "--out", str(out)]
    assert main(command) == 0
    table = pd.read_csv(out)
    assert (table.loc[table["metric"] == "pixel_auroc", "value"] > 0.9).all()
    capsys.readouterr()


def test_what_cannot_be_combined_is_one_sentence(folder, both, tmp_path, capsys):
    def sentence(*arguments):
        assert main(["combine", *map(str, arguments), "--out", str(tmp_path / "out")]) == 1
        return capsys.readouterr().err.splitlines()[-1]

    assert "There are 1 folders and 1 suffixes: give two or more" in sentence(folder / "t1")
    assert "There are 2 folders and 1 suffixes" in sentence(folder / "flair", folder / "t1", "--suffixes", "_t1")
    assert "ill_flair and ill_t1 have no name in common (--suffixes)" in sentence(folder / "flair", folder / "t1")
    assert main(["combine", *command_of(folder), "--out", str(both)]) == 1
    assert "exists already" in capsys.readouterr().err
    moved = tmp_path / "moved"
    for path in (folder / "t1").rglob("*"):
        if path.is_file():
            (moved / path.relative_to(folder / "t1")).parent.mkdir(parents=True, exist_ok=True)
            (moved / path.relative_to(folder / "t1")).write_bytes(path.read_bytes())
    for place in ("maps", "tails"):
        image = nib.load(moved / f"{place}/ill_t1.nii.gz")
        shifted = image.affine.copy()
        shifted[0, 3] += 5
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), shifted), moved / f"{place}/ill_t1.nii.gz")
    pair = (folder / "flair", moved, "--suffixes", "_flair", "_t1")
    assert "do not lie on one grid: register one scan to the other" in sentence(*pair)
    nib.save(nib.load(moved / "maps/ill_t1.nii.gz"), moved / "tails/ill_t1.nii.gz")
    assert "does not hold a probability for each voxel" in sentence(*pair)
    record = json.loads((moved / "predictions.json").read_text())
    for scan in record["scans"]:
        del scan["tail"]
    (moved / "predictions.json").write_text(json.dumps(record))
    assert "holds no tail probabilities of ill_t1: predict with --calibrated" in sentence(*pair)


def test_images_are_combined_too(tmp_path):
    for seed in range(5):
        save_photo(tmp_path / f"healthy/{seed}.png", photo(seed))
    save_photo(tmp_path / "new/spot.png", photo(9, spot=True))
    assert main(["fit", str(tmp_path / "healthy"), "--out", str(tmp_path / "m.h5"), *FAST_FIT]) == 0
    command = ["predict", str(tmp_path / "new"), "--model", str(tmp_path / "m.h5"), "--calibrated", "--out"]
    assert main([*command, str(tmp_path / "one")]) == 0
    pair = [str(tmp_path / "one"), str(tmp_path / "one")]
    for extra in ([], ["--overwrite"]):
        assert main(["combine", *pair, "--out", str(tmp_path / "both"), *extra]) == 0
    found = np.asarray(Image.open(tmp_path / "both/tails/spot.tiff"))
    one = np.asarray(Image.open(tmp_path / "one/tails/spot.tiff")).astype(float)
    np.testing.assert_allclose(found, chi2.sf(-4 * np.log(one), 4), rtol=1e-4)
