"""Groups of a metadata table: joined and cut; healthy pixels above the threshold by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_files import write_scores
from PIL import Image

from dinodp import store
from dinodp.datasets.manifest import image_row, make_manifest, select
from dinodp.datasets.sources import dataset_options
from dinodp.errors import InputError
from dinodp.evaluation.bias import HealthyShares
from dinodp.evaluation.case_properties import describe_cases
from dinodp.evaluation.metadata import groups, joined
from dinodp.evaluation.strata import collect_strata, stratify
from dinodp.metrics.anomaly_maps import anomaly_map
from dinodp.metrics.thresholds import calibrated_thresholds
from dinodp.options.protocol import Protocol


def found(values, cuts=None):
    return {name: rows.tolist() for name, _, _, rows in groups(values, cuts)}


def test_words_and_few_numbers_are_groups_and_many_are_thirds():
    assert found(["f", "m", "", "f"]) == {"f": [0, 3], "m": [1]}
    assert found(["1.5", "3", "1.5"]) == {"1.5": [0, 2], "3": [1]}
    ages = [str(age) for age in (20, 30, 40, 50, 60, 70, 80, 90, 100)]
    assert list(found(ages).values()) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert found(ages, [40, 65]) == {"below 40": [0, 1], "from 40, below 65": [2, 3, 4], "from 65": [5, 6, 7, 8]}
    assert found(["", ""]) == {}
    with pytest.raises(InputError, match=r"Cuts \[3\] are given for values that are no numbers, such as 'f'"):
        found(["f", "m"], [3])


def test_rows_are_joined_by_image_or_subject(tmp_path):
    (tmp_path / "m.csv").write_text("subject,site,NA\np1,Bern,x\np2,NA,y\n")
    table, _ = joined(tmp_path / "m.csv", ["a", "b", "c"], ["p2", "p1", "p9"])
    assert table["site"].tolist() == ["NA", "Bern", ""]  # NA is a word
    (tmp_path / "i.csv").write_text("image,sex\nb.png,f\na.png,m\n")
    assert joined(tmp_path / "i.csv", ["a", "b"], ["", ""])[0]["sex"].tolist() == ["m", "f"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("person,site\np1,x\n", "has the columns person, site: it needs a column image or subject, and at least one"),
        ("subject\np1\n", "it needs a column image or subject"),
        ("subject,site\np1,x\np1,y\n", "names the subject p1 twice"),
        ("subject,site\nq1,x\n", "fits none of the 2 images: their subject is for example 'p1', in the table"),
        ("", "is not a readable CSV table"),
    ],
)
def test_a_table_that_does_not_fit_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=sentence):
        joined(tmp_path / "m.csv", ["a", "b"], ["p1", "p2"])
    with pytest.raises(InputError, match=r"There is no table of metadata none\.csv"):
        joined(Path("none.csv"), [], [])


def test_metadata_makes_no_manifest_anew_and_bins_rise():
    entry = {"source": "phantoms", "metadata": "m.csv", "metadata_bins": {"age": [40, 60]}}
    options = dataset_options(entry)
    assert options.reading() == dataset_options({"source": "phantoms"}).reading()
    assert options.grouping() == {"metadata": "m.csv", "bins": {"age": (40.0, 60.0)}}
    with pytest.raises(InputError, match=r"the cuts of age must be rising numbers, not \[60"):
        dataset_options({**entry, "metadata_bins": {"age": [60, 40]}})


def test_healthy_shares_by_hand():
    shares = HealthyShares({"threshold_fpr05": 1.0}, 50)
    for number, above in enumerate((0, 1, 2, 5)):
        shares.add(np.array([[2.0] * above + [0.0] * (10 - above)], np.float32), f"p{number}")
    ((name, value, (low, high)),) = shares.found([0, 1, 2, 3])
    assert (name, value) == ("healthy_share_above_fpr05", 0.2)
    assert low < 0.2 < high
    ((_, value, ends),) = shares.found([2, 3])
    assert (value, ends) == (0.35, (None, None))  # two subjects
    assert list(shares.found([])) == []


@pytest.fixture
def run_files(tmp_path):
    """Normal and anomalous test images of two scanners; the second one is noisier."""
    generator, rows = np.random.default_rng(0), []
    plan = [("train", "normal", 1), ("valid", "normal", 3), ("test", "normal", 8), ("test", "anomalous", 8)]
    for split, label, count in plan:
        for index in range(count):
            mask = np.zeros((40, 40), np.uint8)
            mask[10 : 12 + index, 10:20] = 255 * (label == "anomalous")
            path = tmp_path / f"{split}-{label}-{index}.png"
            Image.fromarray(np.uint8(generator.normal(120, 5, mask.shape))).save(path)
            Image.fromarray(mask).save(path.with_suffix(".mask.png"))
            rows.append(image_row(split, label, path, path.with_suffix(".mask.png"), f"{label}{index}"))
    manifest = make_manifest(rows)
    for split in ("valid", "test"):
        frame = select(manifest, split)
        maps = generator.gamma(2, 1, (len(frame), 8, 8)).astype(np.float32)
        maps[[split == "test" and int(name[-1]) >= 4 for name in frame["subject"]]] += 1
        write_scores(tmp_path / f"{split}.h5", {"cosine": maps}, manifest)
    lines = [f"{label}{index},{'AB'[index >= 4]},{20 + 10 * index}" for label in ("normal", "anomalous") for index in
             range(8)]  # fmt: skip
    (tmp_path / "m.csv").write_text("subject,scanner,age\n" + "\n".join(lines) + "\n")
    return tmp_path, manifest


def strata_of(files, bins=None, **protocol):
    folder, manifest = files
    describe_cases(manifest, "gt0", folder / "cases.csv", folder / "m.csv")
    scores = (folder / "test.h5", folder / "valid.h5")
    choices = Protocol(resamples=30, **protocol)
    stratify(manifest, folder / "cases.csv", *scores, "cosine", choices, {"model": "m"}, folder / "s.csv", bins)
    return pd.read_csv(folder / "s.csv").set_index(["property", "stratum", "metric"]).sort_index()


def test_groups_have_the_metrics_and_the_healthy_share_of_their_images(run_files):
    table = strata_of(run_files, {"age": [50]})
    folder, manifest = run_files
    test, valid = select(manifest, "test"), store.read_maps(folder / "valid.h5")["cosine"]
    maps = store.read_maps(folder / "test.h5")["cosine"]
    threshold = calibrated_thresholds(valid)["threshold_fpr05"]
    for group, chosen in (("A", range(4)), ("B", range(4, 8))):
        rows = [index for index, name in enumerate(test["subject"]) if name in {f"normal{number}" for number in chosen}]
        expected = np.mean([anomaly_map(maps[row], (40, 40)) > threshold for row in rows])
        found = table.loc[("scanner", group, "healthy_share_above_fpr05")]
        assert found["value"] == pytest.approx(expected, rel=1e-4)
        assert (found["images"], found["subjects"]) == (4, 4)
        assert 0 < table.loc[("scanner", group, "pixel_auroc"), "value"] < 1
    low, high = (table.loc[("scanner", group, "healthy_share_above_fpr05"), "value"] for group in "AB")
    assert low < table.loc[("all", "all", "healthy_share_above_fpr05"), "value"] < high
    assert {"below 50", "from 50"} <= set(table.loc["age"].index.get_level_values("stratum"))
    collect_strata([folder / "s.csv"], folder / "all.csv")
    assert len(pd.read_csv(folder / "all.csv")) == len(table)


def test_without_masks_there_is_the_bias_table_alone(run_files):
    folder, manifest = run_files
    bare = manifest.assign(mask="", mask_sha256="")
    for split in ("valid", "test"):
        write_scores(folder / f"{split}.h5", store.read_maps(folder / f"{split}.h5"), bare)
    table = strata_of((folder, bare), threshold_maps="pixel")
    names = {f"healthy_share_above_pixel_{rate}" for rate in ("fpr10", "fpr05", "fpr01")}
    assert set(table.index.get_level_values("metric")) == names


def test_bins_of_a_column_that_there_is_not(run_files):
    with pytest.raises(InputError, match=r"metadata_bins names weight, but .* has the columns scanner, age"):
        strata_of(run_files, {"weight": [50]})
