"""`dinodp evaluate` and `dinodp compare` on maps that other tools wrote: against reference files and scikit-learn."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scan_phantoms import AFFINE, ORIENTATIONS, reoriented, save, write_predictions
from sklearn.metrics import average_precision_score, roc_auc_score

from dinodp.cli import main
from dinodp.metrics.anomaly_maps import anomaly_map

SHAPE = (24, 30)
PATTERN = ["--subject-pattern", r"^(?P<subject>s\d+)"]


def write_map(path, scores):
    """A map in the format of its suffix: floating point, or 16 bits of scores in [0, 1]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, scores)
    elif path.suffix == ".png":
        Image.fromarray(np.round(scores * 65535).astype(np.uint16)).save(path)
    elif path.suffix == ".tiff":
        Image.fromarray(scores.astype(np.float32)).save(path)
    else:
        save(path, scores.T[:, :, None].astype(np.float32))


def write_mask(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(mask.astype(np.uint8)).save(path)
    elif path.suffix == ".npy":
        np.save(path, mask)
    else:
        save(path, mask.T[:, :, None].astype(np.uint8))


def images(seed=0, n=9, shift=0.3):
    """Scores in [0, 1] and masks of 0, 122 and 255 by name; every third image is healthy."""
    generator = np.random.default_rng(seed)
    found = {}
    for number in range(n):
        mask = np.zeros(SHAPE, np.uint8)
        if number % 3:
            mask[4:10, 5 : 9 + number] = 122
            mask[5:8, 6:9] = 255
        scores = np.round(generator.uniform(0, 0.6, SHAPE) * 65535) / 65535
        found[f"s{number // 2}_{number}"] = (np.clip(scores + shift * (mask > 0), 0, 1), mask)
    return found


def write_all(folder, found, suffix, masks=".png"):
    for name, (scores, mask) in found.items():
        write_map(folder / f"maps/{name}{suffix}", scores)
        write_mask(folder / f"masks/{name}{masks}", mask)
    return folder


def evaluate(folder, *options, maps="maps"):
    out = folder / "out.csv"
    status = main(
        ["evaluate", str(folder / maps), "--masks", str(folder / "masks"), "--out", str(out), "--resamples", "50",
         *options]
    )  # fmt: skip
    return status, pd.read_csv(out, keep_default_na=False, na_values=[""]) if status == 0 else None


def value(table, metric, masks="gt0", pixels="all", over="all pixels", score=None):
    rows = table[(table["metric"] == metric) & (table["masks"] == masks) & (table["pixels"] == pixels)]
    rows = rows[rows["over"] == over] if score is None else rows[rows["score"] == score]
    assert len(rows) == 1
    return float(rows["value"].iloc[0])


def flat(found, rule="gt0"):
    scores = np.concatenate([scores.ravel() for scores, _ in found.values()])
    masks = np.concatenate([mask.ravel() for _, mask in found.values()])
    return scores, masks > 0 if rule == "gt0" else masks == 255


@pytest.mark.parametrize("suffix", [".npy", ".tiff", ".png", ".nii.gz"])
def test_each_format_has_the_metrics_of_scikit_learn(tmp_path, suffix):
    found = images()
    masks = ".nii.gz" if suffix == ".nii.gz" else ".png"
    status, table = evaluate(write_all(tmp_path, found, suffix, masks), *PATTERN)
    assert status == 0
    for rule in ("gt0",) if masks == ".nii.gz" else ("gt0", "eq255"):
        scores, labels = flat(found, rule)
        assert value(table, "pixel_auroc", rule) == pytest.approx(roc_auc_score(labels, scores), abs=1e-4)
        average = average_precision_score(labels, scores)
        assert value(table, "pixel_average_precision", rule) == pytest.approx(average, abs=1e-4)
    assert not (table["metric"].str.startswith("dice")).any()
    known = table[table["low"].notna()]
    assert (known["low"] <= known["value"] + 1e-9).all()
    assert (known["value"] <= known["high"] + 1e-9).all()
    assert set(known["over"]) >= {"all pixels", "each image", "lesions"}


@pytest.mark.parametrize("rule", ["gt0", "eq255"])
def test_reference_values(tmp_path, root, rule):
    folder = root / "tests/data/metrics"
    data, expected = np.load(folder / "metrics_a.npz"), json.loads((folder / "metrics_a.json").read_text())[rule]
    for index, (patches, mask) in enumerate(zip(data["patch_maps"], data["masks"], strict=True)):
        write_map(tmp_path / f"maps/{index}.npy", anomaly_map(patches, mask.shape))
        write_mask(tmp_path / f"masks/{index}.png", mask)
    for index, patches in enumerate(data["validation_normal_patch_maps"]):
        write_map(tmp_path / f"healthy/{index}.npy", patches)
    status, table = evaluate(tmp_path, "--healthy", str(tmp_path / "healthy"))
    assert status == 0
    exact = ("pixel_auroc", "pixel_average_precision", "pixel_aupr_trapezoid", "max_dice", "aupro_30", "prevalence")
    for name in exact:
        assert value(table, name, rule) == pytest.approx(expected[name], abs=1e-4)
    for rate in ("fpr10", "fpr05", "fpr01"):  # 1,536 patches: the next of them, where the reference interpolates
        assert value(table, f"threshold_{rate}", rule) == pytest.approx(expected[f"threshold_{rate}"], abs=1e-3)
        assert value(table, f"dice_{rate}", rule) == pytest.approx(expected[f"dice_{rate}"], abs=5e-3)
    assert value(table, "scan_auroc", rule, score="max") == pytest.approx(expected["image_auroc_max"])


def test_torchmetrics_agrees(tmp_path):
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is in the test extra only")
    import torch

    found = images()
    table = evaluate(write_all(tmp_path, found, ".npy"))[1]
    scores, labels = (torch.from_numpy(part) for part in flat(found))
    for name, function in (
        ("pixel_auroc", torchmetrics.functional.classification.binary_auroc),
        ("pixel_average_precision", torchmetrics.functional.classification.binary_average_precision),
    ):
        assert value(table, name) == pytest.approx(float(function(scores, labels.int())), abs=1e-4)


def test_thresholds_of_healthy_maps_and_of_their_foreground(tmp_path):
    found = images()
    write_all(tmp_path, found, ".npy")
    inside = np.zeros(SHAPE, np.uint8)
    inside[2:20, 2:28] = 7
    inside[8:12, 15:20] = 0  # a hole, which is filled
    filled = inside.copy()
    filled[8:12, 15:20] = 7
    for number in range(4):
        write_map(tmp_path / f"healthy/h{number}.npy", np.random.default_rng(50 + number).uniform(0, 0.6, SHAPE))
        write_mask(tmp_path / f"body/h{number}.png", inside)
    for name in found:
        write_mask(tmp_path / f"body/{name}.png", inside)
    options = ["--healthy", str(tmp_path / "healthy"), "--foreground", str(tmp_path / "body")]
    status, table = evaluate(tmp_path, *options, *PATTERN)
    assert status == 0
    healthy = np.stack([np.load(path) for path in sorted((tmp_path / "healthy").iterdir())])
    scores, labels = flat(found)
    for pixels, part, counts in (
        ("all", healthy, np.ones(len(scores), bool)),
        ("foreground", healthy[:, filled > 0], np.tile(filled.ravel() > 0, len(found)) | labels),
    ):
        threshold = value(table, "threshold_fpr05", pixels=pixels)
        assert np.mean(part > threshold) == pytest.approx(0.05, abs=1e-3)
        above = (scores > threshold) & counts
        dice = 2 * (above & labels).sum() / (above.sum() + labels.sum())
        assert value(table, "dice_fpr05", pixels=pixels) == pytest.approx(dice)
        auroc = roc_auc_score(labels[counts], scores[counts])
        assert value(table, "pixel_auroc", pixels=pixels) == pytest.approx(auroc, abs=1e-4)


def test_healthy_scans_above_the_threshold_by_group(tmp_path, capsys):
    found = images(n=24)
    write_all(tmp_path, found, ".npy")
    for number in range(4):
        write_map(tmp_path / f"healthy/h{number}.npy", np.random.default_rng(50 + number).uniform(0, 0.6, SHAPE))
    people = sorted({name.partition("_")[0] for name in found})
    lines = [f"{name},{'AB'[int(name[1:]) < 6]}" for name in people]
    (tmp_path / "people.csv").write_text("subject,scanner\n" + "\n".join(lines) + "\n")
    options = ["--healthy", str(tmp_path / "healthy"), "--metadata", str(tmp_path / "people.csv")]
    status, table = evaluate(tmp_path, *options, *PATTERN)
    assert status == 0
    threshold = value(table, "threshold_fpr05")
    shares = table[table["metric"] == "healthy_share_above_fpr05"].set_index("group")["value"]
    for group in ("all", "scanner: A", "scanner: B"):
        chosen = [
            scores > threshold
            for name, (scores, mask) in found.items()
            if not mask.any() and (group == "all" or (int(name.partition("_")[0][1:]) < 6) == group.endswith("B"))
        ]
        assert shares[group] == pytest.approx(np.mean(chosen))
    assert "scanner: A" in capsys.readouterr().out


def test_each_image_by_itself_and_image_scores(tmp_path):
    found = images()
    status, table = evaluate(write_all(tmp_path, found, ".npy"), "--top-fraction", "0.1")
    assert status == 0
    alone = [roc_auc_score((mask > 0).ravel(), scores.ravel()) for scores, mask in found.values() if mask.any()]
    assert value(table, "pixel_auroc", over="each image") == pytest.approx(np.mean(alone), abs=1e-4)
    labels = [mask.any() for _, mask in found.values()]
    rules = {
        "max": np.max,
        "mean": np.mean,
        "top-fraction": lambda scores: np.sort(scores.ravel())[-72:].mean(),  # a tenth of 24 x 30
    }
    for rule, of in rules.items():
        expected = roc_auc_score(labels, [of(scores) for scores, _ in found.values()])
        assert value(table, "scan_auroc", over=None, score=rule) == pytest.approx(expected)


def volumes(folder, n=5, shift=1.0):
    """Volumes of random scores in any orientation, as NIfTI and as arrays of slices; lesions in all but one."""
    generator, truth = np.random.default_rng(3), {}
    for number in range(n):
        scores, lesion = generator.normal(size=(10, 12, 5)).astype(np.float32), np.zeros((10, 12, 5), bool)
        if number:
            lesion[3:6, 4:8, 1:4] = True
        scores[lesion] += shift
        turned = ORIENTATIONS[(7 * number) % len(ORIENTATIONS)]
        save(folder / f"maps/v{number}.nii.gz", *reoriented(scores, AFFINE, turned))
        save(folder / f"masks/v{number}.nii.gz", lesion.astype(np.uint8))
        write_map(folder / f"arrays/maps/v{number}.npy", np.moveaxis(scores, 2, 0))
        write_mask(folder / f"arrays/masks/v{number}.npy", np.moveaxis(lesion, 2, 0).astype(np.uint8))
        truth[f"v{number}"] = (scores, lesion)
    return truth


def test_volumes_as_nifti_and_as_arrays_of_slices(tmp_path):
    truth = volumes(tmp_path)
    tables = [evaluate(tmp_path)[1], evaluate(tmp_path / "arrays")[1]]
    scores, labels = (np.concatenate([pair[part].ravel() for pair in truth.values()]) for part in (0, 1))
    each = [roc_auc_score(lesion.ravel(), values.ravel()) for values, lesion in truth.values() if lesion.any()]
    slices = [pair[part][:, :, index] for pair in truth.values() for index in range(5) for part in (0, 1)]
    is_anomalous, highest = [part.any() for part in slices[1::2]], [part.max() for part in slices[::2]]
    for table in tables:
        assert value(table, "pixel_auroc") == pytest.approx(roc_auc_score(labels, scores), abs=1e-4)
        assert value(table, "pixel_auroc", over="each scan") == pytest.approx(np.mean(each), abs=1e-4)
        found = value(table, "slice_auroc", over=None, score="max")
        assert found == pytest.approx(roc_auc_score(is_anomalous, highest))
    assert tables[0]["value"].tolist() == pytest.approx(tables[1]["value"].tolist(), abs=1e-6)


def test_ours_and_theirs_are_compared_over_all_pixels(tmp_path, capsys):
    truth = write_predictions(tmp_path / "ours")
    for name, (scores, lesion, _) in truth.items():
        save(tmp_path / f"theirs/{name}.nii.gz", scores + np.float32(3) * lesion)
        save(tmp_path / f"masks/{name}.nii.gz", lesion.astype(np.uint8))
    status = main(
        ["compare", str(tmp_path / "ours"), str(tmp_path / "theirs"), "--masks", str(tmp_path / "masks"),
         "--resamples", "50", "--out", str(tmp_path / "c.csv")]
    )  # fmt: skip
    assert status == 0
    table = pd.read_csv(tmp_path / "c.csv")
    assert set(table["pixels"]) == {"all"}
    row = table[(table["metric"] == "pixel_auroc") & (table["over"] == "all pixels")].iloc[0]
    scores, labels = (np.concatenate([item[part].ravel() for item in truth.values()]) for part in (0, 1))
    theirs = roc_auc_score(labels, scores + 3 * labels)
    assert row["second"] == pytest.approx(theirs, abs=1e-4)
    assert row["difference"] == pytest.approx(row["first"] - row["second"])
    assert row["low"] < row["difference"] < row["high"] < 0
    assert "first: ours (classical)   second: theirs" in capsys.readouterr().out


def test_the_summary_names_the_conventions_and_the_curve_is_written(tmp_path, capsys):
    write_all(tmp_path, images(), ".npy")
    assert evaluate(tmp_path, "--froc", str(tmp_path / "froc.csv"))[0] == 0
    said = capsys.readouterr().out
    assert "gt0: every value above 0; eq255: only 255" in said
    assert "No healthy maps were given (--healthy): there is no Dice at a calibrated threshold." in said
    curve = pd.read_csv(tmp_path / "froc.csv")
    assert curve["threshold"].is_monotonic_decreasing
    assert curve["sensitivity"].is_monotonic_increasing


def test_rules_that_are_the_same_or_hold_nothing_are_left_out(tmp_path, capsys):
    found = {name: (scores, np.where(mask > 0, 255, 0)) for name, (scores, mask) in images().items()}
    write_all(tmp_path, found, ".npy")
    assert set(evaluate(tmp_path)[1]["masks"]) == {"gt0"}
    assert "gt0 and eq255 are the same" in capsys.readouterr().out
    write_all(tmp_path, {name: (scores, mask // 255) for name, (scores, mask) in found.items()}, ".npy")
    assert set(evaluate(tmp_path)[1]["masks"]) == {"gt0"}
    assert "No mask holds the value 255" in capsys.readouterr().out


@pytest.mark.parametrize(("size", "shape"), [("mask", SHAPE), ("map", (12, 15))])
def test_sizes_that_differ_are_refused_or_made_one(tmp_path, size, shape, capsys):
    found = images()
    for name, (scores, mask) in found.items():
        write_map(tmp_path / f"maps/{name}.npy", scores[::2, ::2])
        write_mask(tmp_path / f"masks/{name}.png", mask)
    assert evaluate(tmp_path)[0] == 1
    said = capsys.readouterr().err
    assert "has 24 x 30 pixels, its map 12 x 15. To resize one of them, say which keeps its size" in said
    status, table = evaluate(tmp_path, "--size", size)
    assert status == 0
    masks = {name: np.asarray(Image.fromarray(mask).resize(shape[::-1], 0)) for name, (_, mask) in found.items()}
    assert value(table, "prevalence") == pytest.approx(np.mean([mask > 0 for mask in masks.values()]))


def test_mistakes(tmp_path, capsys):
    write_all(tmp_path, images(), ".npy")
    bad = tmp_path / "maps/s0_1.npy"

    def told(sentence, *options, maps="maps"):
        assert evaluate(tmp_path, *options, maps=maps)[0] == 1
        assert sentence in capsys.readouterr().err

    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").touch()
    told("holds no anomaly map: NIfTI (.nii, .nii.gz), NumPy arrays (.npy)", maps="empty")
    told("There is no folder", maps="none")
    told("--top-fraction is 0.0; it must lie above 0", "--top-fraction", "0")
    write_mask(tmp_path / "body/s0_0.png", np.ones(SHAPE))
    told("8 of 9 scans have no file in the folder of foregrounds", "--foreground", str(tmp_path / "body"))
    for content, sentence in [
        (np.full(SHAPE, np.nan), "holds 720 values that are not finite"),
        (np.zeros((2, 2, 2, 2)), "has the shape (2, 2, 2, 2)"),
        (np.zeros(SHAPE, complex), "holds values of the type complex128: real numbers are needed"),
        (np.zeros(SHAPE)[:-1], "s0_1.png has 24 x 30 pixels, its map 23 x 30"),
        (np.zeros((3, *SHAPE)), "must be such an array too"),
    ]:
        np.save(bad, content)
        told(sentence)
    bad.write_bytes(b"no array")
    told("is not a readable NumPy array")
    bad.unlink()
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(bad.with_suffix(".png"))
    told("has 8 bits or colours: 256 values tie most scores")
    np.save(bad, np.zeros(SHAPE))
    told("are both called s0_1: which of them is meant?")
    bad.with_suffix(".png").unlink()
    (tmp_path / "masks/s0_1.png").unlink()
    told("1 of 9 scans have no mask in")


def test_masks_without_a_map_are_named(tmp_path, capsys):
    write_all(tmp_path, images(), ".npy")
    (tmp_path / "maps/s2_4.npy").unlink()
    assert evaluate(tmp_path)[0] == 0
    assert "Not used, as there is no map of them: 1 of the files in" in capsys.readouterr().out


def test_masks_that_are_arrays_must_hold_labels(tmp_path, capsys):
    volumes(tmp_path)
    path = tmp_path / "arrays/masks/v1.npy"
    np.save(path, np.full((5, 10, 12), 0.5))
    assert evaluate(tmp_path / "arrays")[0] == 1
    assert "holds probabilities from 0 to 1" in capsys.readouterr().err
    np.save(path, np.zeros((5, 10, 11), int))
    assert evaluate(tmp_path / "arrays")[0] == 1
    assert "has 5 x 10 x 11 pixels, its map 5 x 10 x 12." in capsys.readouterr().err


def test_foregrounds_that_do_not_fit(tmp_path, capsys):
    truth = volumes(tmp_path)
    for name in truth:
        write_mask(tmp_path / f"body/{name}.npy", np.zeros((5, 10, 12), int))
    options = ["--foreground", str(tmp_path / "body")]
    assert evaluate(tmp_path / "arrays", *options)[0] == 1
    assert "is empty: all of its pixels are 0" in capsys.readouterr().err
    write_mask(tmp_path / "body/v0.npy", np.ones((5, 10, 11), int))
    assert evaluate(tmp_path / "arrays", *options)[0] == 1
    assert "has the shape (5, 10, 11), its map (5, 10, 12)" in capsys.readouterr().err
    for name, (scores, _) in truth.items():  # the scans themselves
        save(tmp_path / f"scans/{name}.nii.gz", np.where(scores > 0, 300.5, 0))
    status, table = evaluate(tmp_path, "--foreground", str(tmp_path / "scans"))
    assert status == 0
    assert set(table["pixels"]) == {"all", "foreground"}
    assert nib.load(tmp_path / "scans/v0.nii.gz").shape == (10, 12, 5)
