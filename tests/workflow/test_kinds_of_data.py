"""Data sets that lack a class, masks, or all but one image run to the report, which says what it leaves out."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from project_copy import copy_project, picture, small_run, snakemake

IMAGE_LEVEL = ("oct2017", "rsna", "camelyon16")  # entries of the catalog, in the layouts in which they are published
NAMES = {"oct2017": "NORMAL-{}-1.jpeg", "rsna": "{}.png", "camelyon16": "{}.png"}
FOLDERS = {"oct2017": "{}", "rsna": "{}/img", "camelyon16": "{}"}
ROOTS = {"oct2017": "OCT2017", "rsna": "RSNA", "camelyon16": "camelyon16"}
OWN = {name: {"source": "image_folder", "root": f"data/{name}"} for name in ("only_normal", "one_image")}
FIGURES = ["anomaly_maps", "component_maps", "score_histograms", "roc_pr_curves"]  # tests/unit/report has the others


def write_image_level(root, name):
    """`train/good`, `valid` and `test` with `good` and `Ungood`; the same file names occur in several folders."""
    pattern, folder = NAMES[name], FOLDERS[name]
    for index in range(4):
        picture(root / "train/good" / pattern.format(1000 + index), index)
    for split, start in (("valid", 10), ("test", 20)):
        for label in ("good", "Ungood"):
            for index in range(3):
                place = root / folder.format(f"{split}/{label}") / pattern.format(1000 + index)
                picture(place, start + index + 50 * (label == "Ungood"), label == "Ungood")


def write_own(root, name):
    for index in range(1 if name == "one_image" else 4):
        picture(root / f"train/good/{index}.png", index)
    picture(root / "valid/good/v.png", 30)
    for index in range(1 if name == "one_image" else 3):
        if name == "only_normal":
            picture(root / f"test/good/{index}.png", 40 + index)
        else:
            spot = picture(root / f"test/spot/{index}.png", 50 + index, True)
            (root / "ground_truth/spot").mkdir(parents=True, exist_ok=True)
            Image.fromarray(spot.astype(np.uint8) * 255).save(root / f"ground_truth/spot/{index}_mask.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of all of them with a memory bank alone, and the default tables."""
    run = small_run((1, 1, 1), datasets=[*IMAGE_LEVEL, *OWN], embeddings=["small"], models=["memory_bank"])
    run["run"] |= {"alignment_models": [], "figures": FIGURES, "bootstrap_resamples": 20, "mask_rules": ["gt0"]}
    run["datasets"] = OWN
    run["embeddings"] = {"small": {"backbone": "classical", "resolution": 112}}
    folder = copy_project(tmp_path_factory.mktemp("kinds"), "kinds", run)
    for name in IMAGE_LEVEL:
        write_image_level(folder / "data" / ROOTS[name], name)
    for name in OWN:
        write_own(folder / "data" / name, name)
    snakemake(folder, "--configfile", "config/kinds.yaml")
    return folder


def test_every_output_is_there(finished):
    for dataset in (*IMAGE_LEVEL, *OWN):
        drawn = {path.name for path in (finished / f"results/figures/{dataset}/small").iterdir()}
        assert drawn == {f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")}
    assert (finished / "results/report.html").stat().st_size > 10000


def test_metrics_are_those_that_have_a_meaning(finished):
    metrics = pd.read_csv(finished / "results/metrics.csv")
    known = metrics.groupby("dataset")["metric"].agg(set)
    for name in IMAGE_LEVEL:
        assert "image_auroc" in known[name]
        assert not any(metric.startswith(("pixel_auroc", "dice_", "prevalence")) for metric in known[name])
    assert all(metric.startswith("threshold") for metric in known["only_normal"])
    assert {"pixel_auroc", "max_dice"} <= known["one_image"]
    assert "image_auroc" not in known["one_image"]
    assert np.isfinite(metrics["value"]).all()


def test_tables_say_what_they_leave_out(finished):
    table = (finished / "results/tables/table1.md").read_text()
    assert "Left out, as there is no such value of them: camelyon16, oct2017, only_normal, rsna." in table
    assert (finished / "results/tables/table3.md").read_text().startswith("Left out: Table 'table3' has no row")
    assert "Left out: Table 'table3' has no row" in (finished / "results/summary.md").read_text()


def test_the_report_says_what_is_missing(finished):
    text = (finished / "results/report.html").read_text()
    for name in IMAGE_LEVEL:
        assert f"{name} has no masks of its anomalous test images, so no metric of pixels or regions." in text
    assert "only_normal has no anomalous test image: it has thresholds and maps, but no metric." in text
    assert "one_image has no normal test image, so no metric of whole images." in text
    assert "nan" not in text.split('<script id="data"')[0].lower().split()


def test_names_that_occur_in_several_folders_are_no_patient(finished):
    manifest = pd.read_csv(finished / "results/data/camelyon16/manifest.csv")
    assert manifest["subject"].is_unique


def rules_to_run(folder):
    text = snakemake(folder, "-n", "--configfile", "config/kinds.yaml").text
    return set(re.findall(r"(?m)^(?:local)?rule (\w+):", text)), text


def test_images_that_change_make_the_manifest_anew_and_nothing_else_does(finished):
    assert "Nothing to be done" in rules_to_run(finished)[1]
    root = finished / "data/only_normal"
    (root / ".DS_Store").write_text("")
    (root / ".git").mkdir()
    assert "Nothing to be done" in rules_to_run(finished)[1]
    picture(root / "train/good/added.png", 77)
    rules, text = rules_to_run(finished)
    assert {"prepare_dataset", "verify_dataset", "embed"} <= rules
    assert text.count("results/data/only_normal/manifest.csv.origin.json\n    log") == 1
    assert "wildcards: dataset=rsna" not in text
