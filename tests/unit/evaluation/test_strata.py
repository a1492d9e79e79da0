"""Failure analysis: properties of cases worked out by hand, and strata against metrics of the same images alone."""

import numpy as np
import pandas as pd
import pytest
from made_files import write_scores
from PIL import Image

from dinodp import store
from dinodp.datasets.manifest import image_row, make_manifest, select
from dinodp.evaluation.case_properties import describe_cases, lesion_contrast, slice_levels
from dinodp.evaluation.strata import collect_strata, strata, stratify
from dinodp.metrics import evaluate
from dinodp.options.protocol import Protocol

PROTOCOL = Protocol(resamples=40)


def test_contrast_by_hand():
    image = np.full((40, 40), 0.4)
    image[:, 20:] = 0.6
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:15, 4:9] = True
    image[mask] = 0.9
    spread = image[~mask].std()
    assert lesion_contrast(image, mask) == pytest.approx(0.5 / spread)
    image[mask] = 0.4
    assert lesion_contrast(image, mask) == pytest.approx(0)
    assert np.isnan(lesion_contrast(np.full((40, 40), 0.5), mask))  # one value: no spread
    assert np.isnan(lesion_contrast(image, np.ones((40, 40), dtype=bool)))  # no surroundings


def test_levels_run_from_a_subjects_first_to_its_last_slice():
    frame = pd.DataFrame({"subject": ["a", "a", "a", "b", "", ""], "slice": ["10", "20", "14", "5", "1", "2"]})
    np.testing.assert_allclose(slice_levels(frame), [0, 1, 0.4, np.nan, np.nan, np.nan])


def test_strata_are_thirds():
    cases = pd.DataFrame(
        {
            "label": ["anomalous"] * 6 + ["normal"] * 3,
            "lesion_share": [0.1, 0.5, 0.2, 0.6, 0.3, 0.4, np.nan, np.nan, np.nan],
            "contrast": [1.0] * 6 + [np.nan] * 3,  # one value: nothing to compare
            "level": [0, 0.1, 0.5, 0.9, np.nan, 0.4, 0.2, 0.6, 1.0],
        }
    )
    found = {(item["property"], item["stratum"]): item["rows"].tolist() for item in strata(cases)}
    assert found == {
        ("lesion_share", "small"): [0, 2],
        ("lesion_share", "medium"): [4, 5],
        ("lesion_share", "large"): [1, 3],
        ("level", "first third"): [0, 1, 6],
        ("level", "middle third"): [2, 5, 7],
        ("level", "last third"): [3, 8],
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Twelve anomalous images with lesions of rising size, four normal ones, and scores."""
    folder = tmp_path_factory.mktemp("run")
    generator = np.random.default_rng(0)
    rows = []
    for split, label, count in (
        ("train", "normal", 1),
        ("valid", "normal", 3),
        ("test", "normal", 4),
        ("test", "anomalous", 12),
    ):
        for index in range(count):
            mask = np.zeros((40, 40), dtype=np.uint8)
            mask[10 : 12 + index, 10:20] = 255 * (label == "anomalous")
            path = folder / f"{split}-{label}-{index:02d}.png"
            image = generator.normal(120, 5, mask.shape) + 0.2 * mask
            Image.fromarray(np.uint8(image)).save(path)
            Image.fromarray(mask).save(path.with_suffix(".mask.png"))
            rows.append(image_row(split, label, path, path.with_suffix(".mask.png"), f"{label}{index % 4}", index // 4))
    manifest = make_manifest(rows)
    for split in ("valid", "test"):
        frame = select(manifest, split)
        maps = generator.gamma(2, 1, (len(frame), 8, 8)).astype(np.float32)
        maps[(frame["label"] == "anomalous").to_numpy(), 2:4, 2:4] += 2
        write_scores(folder / f"{split}.h5", {"cosine": maps}, manifest)
    describe_cases(manifest, "gt0", folder / "cases.csv")
    return folder, manifest


def test_cases_of_files(run):
    folder, manifest = run
    cases = pd.read_csv(folder / "cases.csv")
    test = select(manifest, "test")
    assert len(cases) == len(test) == 16
    anomalous = cases[cases["label"] == "anomalous"]
    assert anomalous["lesion_share"].tolist() == pytest.approx([(2 + i) * 10 / 1600 for i in range(12)])
    assert (anomalous["contrast"] > 5).all()
    assert cases[cases["label"] == "normal"]["lesion_share"].isna().all()
    assert cases["level"].tolist()[:12:4] == [0, 0.5, 1]


def test_a_stratum_has_the_metrics_of_its_images(run):
    folder, manifest = run
    labels = {"dataset": "d", "embedding": "e", "model": "m", "seed": "0"}
    cases = pd.read_csv(folder / "cases.csv")
    files = (folder / "test.h5", folder / "valid.h5")
    stratify(manifest, folder / "cases.csv", *files, "cosine", PROTOCOL, labels, folder / "strata.csv")
    found = pd.read_csv(folder / "strata.csv").set_index(["property", "stratum", "metric"])
    test, valid = select(manifest, "test"), select(manifest, "valid")
    maps, valid_maps = (store.read_maps(file)["cosine"] for file in files)
    rows = np.flatnonzero((cases["lesion_share"] > 0.06).to_numpy())  # the four largest
    masks = [np.asarray(Image.open(path)) for path in test["mask"].iloc[rows]]
    alone = evaluate(maps[rows], masks, valid_maps)
    found = found.sort_index()
    large = found.loc["lesion_share", "large"]
    for name in ("pixel_auroc", "pixel_average_precision", "dice_fpr05", "prevalence"):
        assert large.loc[name, "value"] == pytest.approx(alone[name], rel=1e-5)
    assert large.loc["pixel_auroc", "images"] == 4
    assert large.loc["pixel_auroc", "interval_low"] <= large.loc["pixel_auroc", "value"]
    assert large.loc["pixel_auroc", "value"] <= large.loc["pixel_auroc", "interval_high"]
    normal = np.flatnonzero((test["label"] == "normal").to_numpy())
    both = np.concatenate([normal, rows])
    images = evaluate(maps[both], None, valid_maps, image_labels=np.isin(both, rows))
    assert large.loc["image_auroc", "value"] == pytest.approx(images["image_auroc"])
    prevalences = [found.loc[("lesion_share", name, "prevalence"), "value"] for name in ("small", "medium", "large")]
    assert prevalences == sorted(prevalences)
    assert valid["label"].eq("normal").all()


def scores_of(folder, manifest, place):
    """The same scores as of another manifest."""
    return [
        write_scores(place / f"{split}.h5", store.read_maps(folder / f"{split}.h5"), manifest)
        for split in ("test", "valid")
    ]


def test_a_stratum_of_two_subjects_has_no_interval(run, tmp_path):
    folder, manifest = run
    manifest = manifest.assign(subject=manifest["subject"].replace(["anomalous2", "anomalous3"], "anomalous1"))
    files = scores_of(folder, manifest, tmp_path)
    describe_cases(manifest, "gt0", tmp_path / "cases.csv")
    stratify(manifest, tmp_path / "cases.csv", *files, "cosine", PROTOCOL, {"dataset": "d"}, tmp_path / "strata.csv")
    found = pd.read_csv(tmp_path / "strata.csv")
    assert found["value"].notna().all()
    assert found["interval_low"].isna().all()


def test_without_masks_there_are_no_rows_and_tables_are_joined(run, tmp_path):
    folder, manifest = run
    bare = manifest.assign(mask="", mask_sha256="")
    describe_cases(bare, "gt0", tmp_path / "cases.csv")
    files = scores_of(folder, bare, tmp_path)
    stratify(bare, tmp_path / "cases.csv", *files, "cosine", PROTOCOL, {"dataset": "d"}, tmp_path / "none.csv")
    assert len(pd.read_csv(tmp_path / "none.csv")) == 0
    labels, files = {"dataset": "d"}, (folder / "test.h5", folder / "valid.h5")
    stratify(manifest, folder / "cases.csv", *files, "cosine", Protocol(resamples=0), labels, tmp_path / "one.csv")
    collect_strata([tmp_path / "none.csv", tmp_path / "one.csv"], tmp_path / "all.csv")
    joined = pd.read_csv(tmp_path / "all.csv")
    assert len(joined) == len(pd.read_csv(tmp_path / "one.csv")) > 0
    assert joined["interval_low"].isna().all()
