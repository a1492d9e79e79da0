"""`dinodp evaluate` and `dinodp compare` against scikit-learn and by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scan_phantoms import AFFINE, MAP_SHAPE, ORIENTATIONS, reoriented, save, save_photo, write_predictions
from sklearn.metrics import average_precision_score, roc_auc_score

from dinodp.cli import main
from dinodp.errors import InputError
from dinodp.scans.reading.masks import read_volume_mask
from dinodp.scans.writing.maps import read_map, write_image


@pytest.fixture
def case(tmp_path):
    truth = write_predictions(tmp_path / "maps_a")
    for name, (_, lesion, _) in truth.items():
        save(tmp_path / f"masks/{name}.nii.gz", lesion.astype(np.uint8))
    return tmp_path, truth


def evaluate(tmp_path, *options, folder="maps_a"):
    status = main(
        ["evaluate", str(tmp_path / folder), "--masks", str(tmp_path / "masks"), "--out", str(tmp_path / "out.csv"),
         "--resamples", "50", *options]
    )  # fmt: skip
    return status, pooled(pd.read_csv(tmp_path / "out.csv")) if status == 0 else None


def pooled(table):
    """What dinodp scored, all of its pixels pooled, and images by their recorded scores."""
    first = table[(table["pixels"] == table["pixels"].iloc[0]) & table["score"].isin(["recorded", np.nan])]
    return first[~first["over"].isin(["each image", "each scan"])].set_index("metric")


def counted(truth):
    """Scores and labels of all voxels that count; lesion voxels that were not scored are lowest."""
    scores = np.concatenate([np.where(done, values, -np.inf)[done | lesion] for values, lesion, done in truth.values()])
    labels = np.concatenate([lesion[done | lesion] for _, lesion, done in truth.values()])
    return np.where(np.isfinite(scores), scores, -100), labels


def test_metrics_are_those_of_scikit_learn_over_the_voxels_that_count(case, capsys):
    tmp_path, truth = case
    status, found = evaluate(tmp_path, "--subject-pattern", r"^(?P<subject>p\d)")
    assert status == 0
    scores, labels = counted(truth)
    values = found["value"]
    assert values["pixel_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-4)
    assert values["pixel_average_precision"] == pytest.approx(average_precision_score(labels, scores), abs=1e-4)
    assert values["prevalence"] == pytest.approx(labels.mean())
    for name, threshold in {"fpr10": 1.0, "fpr05": 1.5, "fpr01": 2.5}.items():
        above = scores > threshold
        dice = 2 * (above & labels).sum() / (above.sum() + labels.sum())
        assert values[f"dice_{name}"] == pytest.approx(dice)
    assert values["scan_auroc"] == 0.0  # the healthy one has the highest scan score
    slices, anomalous = [], []
    for values_, lesion, done in truth.values():
        for index in range(1, 5):
            slices.append(values_[:, :, index][done[:, :, index]].mean())  # as recorded
            anomalous.append(lesion[:, :, index].any())
    assert values["slice_auroc"] == pytest.approx(roc_auc_score(anomalous, slices))
    assert (found["low"].dropna() <= found["value"][found["low"].notna()] + 1e-9).all()
    assert "5 scans of 4 subjects; intervals are over subjects. With so few" in capsys.readouterr().out


def test_masks_are_read_once(case, monkeypatch):
    tmp_path, truth = case
    read = []
    monkeypatch.setattr(
        "dinodp.scans.measuring.masked.read_volume_mask",
        lambda path, geometry: read.append(path.name) or read_volume_mask(path, geometry),
    )
    assert evaluate(tmp_path)[0] == 0
    assert sorted(read) == [f"{name}.nii.gz" for name in truth]


def test_masks_by_suffix_and_orientation(tmp_path):
    truth = write_predictions(tmp_path / "maps_a", names=("p1_a", "p2_a", "p3_a"), healthy=())
    for number, (name, (_, lesion, _)) in enumerate(truth.items()):
        orientation = ORIENTATIONS[(5 * number + 3) % len(ORIENTATIONS)]
        stored = reoriented(lesion.astype(np.uint8), AFFINE, orientation)
        save(tmp_path / f"masks/{name.removesuffix('_a')}_seg.nii.gz", *stored)
    status, found = evaluate(tmp_path, "--scan-suffix", "_a", "--mask-suffix", "_seg")
    assert status == 0
    scores, labels = counted(truth)
    assert found["value"]["pixel_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-4)


@pytest.mark.parametrize(("option", "n_scans"), [("healthy", 5), ("skip", 4)])
def test_scans_without_mask(case, option, n_scans, capsys):
    tmp_path, _ = case
    (tmp_path / "masks/p4_a.nii.gz").unlink()
    assert evaluate(tmp_path)[0] == 1
    assert "1 of 5 scans have no mask in" in capsys.readouterr().err
    status, found = evaluate(tmp_path, "--without-mask", option)
    assert status == 0
    assert f"{n_scans} scans of" in capsys.readouterr().out
    assert ("scan_auroc" in found.index) == (option == "healthy")


def test_images(tmp_path):
    generator = np.random.default_rng(1)
    (tmp_path / "maps_a/maps").mkdir(parents=True)
    (tmp_path / "masks").mkdir()
    scans, all_scores, all_labels = [], [], []
    for number in range(4):
        lesion = np.zeros((20, 24), dtype=bool)
        lesion[4:9, 6:12] = number != 3
        levels = generator.integers(1, 40000, lesion.shape).astype(np.uint16) + 20000 * lesion.astype(np.uint16)
        Image.fromarray(levels).save(tmp_path / f"maps_a/maps/i{number}.png")
        Image.fromarray(lesion.astype(np.uint8) * 255).save(tmp_path / f"masks/i{number}.png")
        scans.append({"name": f"i{number}", "map": f"maps/i{number}.png", "outside": 0.0, "score": 9.0 - number,
                      "slices": []})  # fmt: skip
        all_scores.append(levels.ravel())
        all_labels.append(lesion.ravel())
    record = {"axis": "axial", "failed": {}, "frame": None, "map_range": [-1, 3], "model": "m", "scans": scans,
              "thresholds": {"fpr01": 2.0}, "backbone": {"backbone": "classical"}}  # fmt: skip
    (tmp_path / "maps_a/predictions.json").write_text(json.dumps(record))
    status, found = evaluate(tmp_path)
    assert status == 0
    scores, labels = np.concatenate(all_scores), np.concatenate(all_labels)
    assert found["value"]["pixel_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-4)
    assert found["value"]["scan_auroc"] == 1.0
    above = scores / 65535 * 4 - 1 > 2.0
    assert found["value"]["dice_fpr01"] == pytest.approx(2 * (above & labels).sum() / (above.sum() + labels.sum()))
    assert "slice_auroc" not in found.index


def compare(tmp_path, second, *options):
    return main(
        ["compare", str(tmp_path / "maps_a"), str(tmp_path / second), "--masks", str(tmp_path / "masks"),
         "--resamples", "200", "--out", str(tmp_path / "c.csv"), *options]
    )  # fmt: skip


def test_a_model_compared_with_itself_differs_by_nothing(case):
    tmp_path, _ = case
    assert compare(tmp_path, "maps_a") == 0
    found = pd.read_csv(tmp_path / "c.csv")
    assert set(found["metric"]) >= {"pixel_auroc", "aupro_30", "dice_fpr01", "scan_auroc", "slice_auroc"}
    known = found[found["over"] != "healthy scans"]  # of one scan: no interval
    assert (known[["difference", "low", "high"]] == 0).all().all()


def test_a_better_model_is_told_from_a_worse_one(case, capsys):
    tmp_path, _ = case
    write_predictions(tmp_path / "maps_b", shift=0.2)
    assert compare(tmp_path, "maps_b") == 0
    assert "first: maps_a (classical)   second: maps_b (classical)" in capsys.readouterr().out
    row = pooled(pd.read_csv(tmp_path / "c.csv")).loc["pixel_auroc"]
    alone = [evaluate(tmp_path, folder=folder)[1]["value"]["pixel_auroc"] for folder in ("maps_a", "maps_b")]
    assert row["difference"] == pytest.approx(alone[0] - alone[1])
    assert 0 < row["low"] < row["difference"] < row["high"]


def test_comparing_other_scans_is_refused(case, capsys):
    tmp_path, _ = case
    write_predictions(tmp_path / "maps_b", names=("p1_a", "p9_a"))
    assert compare(tmp_path, "maps_b") == 1
    assert "maps of different scans: 5 are in one only, for example p1_b" in capsys.readouterr().err


def test_mistakes(case, capsys):
    tmp_path, truth = case
    (tmp_path / "file").touch()
    for arguments, sentence in [
        (["--out", str(tmp_path / "file/x.csv")], "Nothing can be written into"),
        (["--out", str(tmp_path)], "is a folder: give the name of a file"),
        (["--masks", str(tmp_path / "none")], "There is no file or folder"),
        (["--masks", str(tmp_path / "maps_a"), "--mask-suffix", "_x"], "No scan has a mask in"),
        (["--scan-suffix", "_t1"], "The scan p1_a does not end in '_t1'"),
        (["--resamples", "0"], "--resamples is 0; it must be at least 1"),
        (["--subject-pattern", "("], "is no regular expression"),
    ]:
        assert evaluate(tmp_path, *arguments)[0] == 1
        assert sentence in capsys.readouterr().err
    save(tmp_path / "masks/p2_a.nii.gz", truth["p2_a"][1].astype(np.uint8), AFFINE @ np.diag([1, 1, 1.1, 1]))
    assert evaluate(tmp_path)[0] == 1
    assert "does not lie on the grid of its map" in capsys.readouterr().err
    save(tmp_path / "masks/p2_a.nii.gz", truth["p2_a"][1] * np.float32(1.5))
    assert evaluate(tmp_path)[0] == 1
    assert "must hold labels 0, 1, 2" in capsys.readouterr().err
    for name in truth:
        save(tmp_path / f"masks/{name}.nii.gz", np.zeros(MAP_SHAPE, np.uint8))
    assert evaluate(tmp_path)[0] == 1
    assert "None of the 5 masks holds a lesion" in capsys.readouterr().err
    for name, (_, _, scored) in truth.items():  # the scans themselves, their suffix forgotten
        save(tmp_path / f"masks/{name}.nii.gz", scored.astype(np.int16) * 300)
    assert evaluate(tmp_path)[0] == 1
    assert "cover 100.0% of what was scored: are they the scans themselves (--scan-suffix" in capsys.readouterr().err
    (tmp_path / "maps_a/maps/p1_a.nii.gz").write_bytes(b"x")
    assert evaluate(tmp_path)[0] == 1
    assert "p1_a.nii.gz is not a readable NIfTI volume" in capsys.readouterr().err
    record = json.loads((tmp_path / "maps_a/predictions.json").read_text())
    for changed in ({**record, "scans": [{"name": "p1_a"}]}, {**record, "axis": "oblique"}, {"model": "m"}, [1]):
        (tmp_path / "maps_a/predictions.json").write_text(json.dumps(changed))
        assert evaluate(tmp_path)[0] == 1
        sentence = "is not what this version of `dinodp predict` writes" if changed != [1] else "holds JSON that is no"
        assert f"predictions.json {sentence}" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["tiff", "png"])
def test_pixels_of_an_image_that_were_not_scored_do_not_count(tmp_path, suffix):
    """Written and read by dinodp's own functions: normal pixels outside count for nothing, however many they are."""
    generator = np.random.default_rng(2)
    scores = generator.normal(size=(30, 40)).astype(np.float32)
    scored, lesion = np.zeros((2, 30, 40), dtype=bool)
    scored[5:25, 5:35] = True
    lesion[4:9, 4:12] = True  # in part not scored
    scores[lesion] += 1
    low = float(scores[scored].min())
    outside = float(np.nextafter(np.float32(low), np.float32(-np.inf)))
    scores[~scored] = outside
    write_image(tmp_path / f"p/maps/x.{suffix}", scores, scored, (low, 9.0))
    save_photo(tmp_path / "masks/x.png", lesion.astype(np.uint8) * 255)
    record = {
        "axis": "axial", "failed": {}, "frame": None, "map_range": [low, 9.0], "model": "m",
        "thresholds": {"fpr01": 2.0}, "backbone": {"backbone": "classical"},
        "scans": [{"name": "x", "map": f"maps/x.{suffix}", "outside": outside, "score": 1.0, "slices": []}],
    }  # fmt: skip
    (tmp_path / "p/predictions.json").write_text(json.dumps(record))
    status, found = evaluate(tmp_path, folder="p")
    assert status == 0
    values, labels = counted({"x": (scores, lesion, scored)})
    assert found["value"]["prevalence"] == pytest.approx(labels.mean())
    assert found["value"]["pixel_auroc"] == pytest.approx(roc_auc_score(labels, values), abs=1e-3)


def test_a_clipped_map_is_refused(tmp_path):
    scores = np.array([[0.5, 3.0, 9.0]], np.float32)
    write_image(tmp_path / "x.png", scores, np.ones((1, 3), bool), (0.0, 3.0))
    with pytest.raises(InputError, match=r"x.png is clipped: 2 of its pixels hold 65535.*--image-format tiff"):
        read_map(tmp_path / "x.png", (0.0, 3.0), 0.0)
