"""Tail probabilities: bounded, exact up to a known rounding, and uniform on healthy scans that were not fitted."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scan_phantoms import FAST, FAST_FIT, WINDOW, head, healthy_folder, lesion_mask, photo, save, save_photo

from dinodp.cli import main
from dinodp.errors import InputError
from dinodp.scans import AnomalyDetector
from dinodp.scans.detecting.tail import MOST, Tail
from dinodp.scans.reading.folder import read_scan

SHARES = np.arange(0.1, 1, 0.1)


def exact(healthy, scores):
    """(1 + number of healthy scores that are at least as high) / (1 + n)."""
    return np.array([(1 + (healthy >= score).sum()) / (1 + len(healthy)) for score in scores])


@given(
    st.lists(st.integers(-20, 20), min_size=1, max_size=400),
    st.lists(st.floats(-25, 25, width=32), min_size=1, max_size=30),
)
def test_a_tail_probability_is_exact_or_rounded_up_by_one_per_cent(healthy, scores):
    values, asked = np.array(healthy, np.float32), np.array([*scores, *healthy], np.float32)
    tail = Tail.of(values)
    found, truth = tail.probability(asked).astype(float), exact(values, asked)
    assert (found >= truth - 1e-6).all()
    assert (found <= 1.01 * truth + 1e-6).all()
    assert found.min() >= np.float32(tail.smallest)
    assert found.max() <= 1
    assert (np.diff(found[np.argsort(asked, kind="stable")]) <= 0).all()
    assert Tail.from_json(json.loads(json.dumps(tail.to_json()))) == tail


def test_scores_that_are_tied_count_as_at_least_as_high():
    tail = Tail.of(np.repeat([1.0, 2.0], 2).astype(np.float32))
    found = tail.probability(np.array([0, 1, 1.5, 2, 3], np.float32))
    np.testing.assert_allclose(found, np.array([5, 5, 3, 3, 1]) / 5)


@pytest.mark.parametrize("n", [10_000, 3_000_000])
def test_what_is_kept_of_many_voxels_is_bounded(n):
    healthy = np.random.default_rng(0).normal(size=n).astype(np.float32)
    tail = Tail.of(healthy)
    assert len(tail.scores) < MOST / 3
    assert tail.smallest == 1 / (n + 1)
    assert tail.probability(np.float32([1e9]))[0] == np.float32(tail.smallest)


def test_among_exchangeable_scores_the_probabilities_are_uniform():
    """Of scores drawn alike, at most a share p has a tail probability of at most p; hardly fewer do."""
    generator = np.random.default_rng(1)
    tail = Tail.of(generator.gamma(2.0, size=50_000).astype(np.float32))
    found = tail.probability(generator.gamma(2.0, size=50_000).astype(np.float32))
    for share in (0.001, 0.01, *SHARES):
        assert (found <= share).mean() == pytest.approx(share, abs=4 * np.sqrt(share / 50_000))


def most_apart(values):
    """Largest distance of the distribution of tail probabilities from the uniform one (Kolmogorov-Smirnov)."""
    return max(abs((values <= share).mean() - share) for share in SHARES)


def test_healthy_scans_that_were_not_fitted_are_uniform_and_lesions_are_not(tmp_path):
    detector = AnomalyDetector(**FAST, held_out=0.5).fit(healthy_folder(tmp_path / "healthy", 8))
    for seed in (20, 21):
        scan = save(tmp_path / f"{seed}.nii.gz", head(seed))
        found = detector.anomaly_map(scan, calibrated=True)
        assert most_apart(found[detector.anomaly_map(scan) > detector.score_scan(scan).outside]) < 0.1
    lesion = detector.anomaly_map(save(tmp_path / "lesion.nii.gz", head(7, lesion=True)), calibrated=True)
    assert np.median(lesion[lesion_mask()]) < 0.02


def test_real_healthy_brains_that_were_not_fitted_are_uniform(shared, tmp_path):
    """Three brains of the validation split of OASIS, together: scanners and people differ more than phantoms do."""
    data, weights = shared / "data/oasis_t1", str(shared / "weights/vit-tiny-patch16-224")
    (tmp_path / "healthy").mkdir()
    for path in sorted((data / "train").glob("*.nii.gz"))[:8]:
        shutil.copy(path, tmp_path / "healthy")
    options = {"layers": [8], "resolution": 160, "slice_step": 12, "held_out": 0.5}
    method = {"family": "eb_mixture", "components": 60, "epochs": 4}
    detector = AnomalyDetector(weights, method=method, **options).fit(tmp_path / "healthy")
    scorer, tail, found = detector.fitted_.scorer, detector.fitted_.calibration.tail, []
    for path in sorted((data / "valid").glob("*.nii.gz")):
        scored = scorer.score(read_scan(path.name, path, scorer.preparation.reading()), every=12)
        found.append(tail.probability(scored.calibration_voxels))
    assert len(found) == 3
    assert most_apart(np.concatenate(found)) < 0.08


def test_predict_writes_maps_of_tail_probabilities(tmp_path):
    model, out = str(tmp_path / "m.h5"), tmp_path / "out"
    assert main(["fit", str(healthy_folder(tmp_path / "h", 4)), "--out", model, *FAST_FIT, *WINDOW]) == 0
    save(tmp_path / "new/a.nii.gz", head(7, lesion=True))
    assert main(["predict", str(tmp_path / "new"), "--model", model, "--out", str(out), "--calibrated"]) == 0
    scores, tails = (nib.load(out / f"{folder}/a.nii.gz") for folder in ("maps", "tails"))
    np.testing.assert_allclose(tails.affine, scores.affine)
    values, found = scores.get_fdata(), tails.get_fdata()
    record = json.loads((out / "predictions.json").read_text())
    assert record["scans"][0]["tail"] == "tails/a.nii.gz"
    scored = values > record["scans"][0]["outside"]
    assert (found[~scored] == 1).all()
    assert np.float32(record["smallest_tail"]) <= found.min() < found[scored].max() <= 1
    order = np.argsort(values[scored])
    assert (np.diff(found[scored][order]) <= 0).all()  # the higher the score, the rarer
    assert main(["predict", str(tmp_path / "new"), "--model", model, "--out", str(out), "--overwrite"]) == 0
    assert not list((out / "tails").iterdir())


def test_images_have_them_as_tiff(tmp_path):
    for seed in range(6):
        save_photo(tmp_path / f"healthy/h{seed}.png", photo(seed))
    save_photo(tmp_path / "new/spot.png", photo(9, spot=True))
    model = str(tmp_path / "m.h5")
    assert main(["fit", str(tmp_path / "healthy"), "--out", model, *FAST_FIT]) == 0
    options = ["--calibrated", "--image-format", "png"]
    assert main(["predict", str(tmp_path / "new"), "--model", model, "--out", str(tmp_path / "out"), *options]) == 0
    found = np.asarray(Image.open(tmp_path / "out/tails/spot.tiff"))
    assert found.dtype == np.float32
    assert np.abs(np.argwhere(found == found.min()).mean(axis=0) - [30, 60]).max() < 16


def test_a_tail_of_nothing_is_refused():
    with pytest.raises(InputError, match="from 1 to 4096 scores"):
        Tail(0, [], [])
