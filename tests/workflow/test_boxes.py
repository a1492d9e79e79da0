"""A data set whose lesions are boxes, beside the same with these boxes painted as masks, from images to the report."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from project_copy import copy_project, picture, small_run, snakemake

from dinodp.cli import main

RUN = ("--configfile", "config/boxes.yaml")
BOXES = {0: [(29, 21, 24, 19)], 1: [(29, 21, 24, 19), (90, 80, 10, 8)], 2: [(30.4, 20, 21, 20)]}
SENSITIVITY = [f"lesion_sensitivity_{limit}" for limit in (1, 2, 4)]


def write_images(root, *, masks):
    for place, first, count in (("train/good", 0, 4), ("valid/good", 10, 2), ("test/good", 20, 3)):
        for index in range(count):
            picture(root / f"{place}/{index}.png", first + index)
    for index, boxes in BOXES.items():
        picture(root / f"test/spot/{index}.png", 50 + index, True)
        if masks:
            mask = np.zeros((96, 112), np.uint8)
            for left, top, width, height in boxes:
                mask[top : top + height, int(left + 0.5) : int(left + 0.5) + width] = 255
            (root / "ground_truth/spot").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / f"ground_truth/spot/{index}_mask.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = small_run((1, 1, 1), datasets=["boxed", "painted"], embeddings=["small"], models=["memory_bank", "given"])
    run["run"] |= {"alignment_models": [], "figures": ["anomaly_maps", "froc"], "tables": ["table1", "lesions"]}
    run["run"] |= {"bootstrap_resamples": 20, "mask_rules": ["gt0"], "lesions": True}
    run["datasets"] = {
        "boxed": {"source": "image_folder", "root": "data/boxed", "boxes": "data/boxes.csv"},
        "painted": {"source": "image_folder", "root": "data/painted"},
    }
    run["embeddings"] = {"small": {"backbone": "classical", "resolution": 112}}
    run["models"] = {"given": {"family": "external", "maps": "data/maps"}}
    folder = copy_project(tmp_path_factory.mktemp("boxes"), "boxes", run)
    for name in ("boxed", "painted"):
        write_images(folder / "data" / name, masks=name == "painted")
    lines = [f"test/spot/{index}.png,{','.join(map(str, box))}" for index, boxes in BOXES.items() for box in boxes]
    (folder / "data/boxes.csv").write_text("image,x,y,width,height\n" + "\n".join(lines) + "\n")
    for image in (folder / "data/boxed").rglob("*.png"):
        target = (folder / "data/maps" / image.relative_to(folder / "data/boxed")).with_suffix(".npy")
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target, np.abs(np.asarray(Image.open(image), dtype=np.float32) - 110))
    snakemake(folder, *RUN)
    return folder


def test_lesions_and_images_are_measured_and_pixels_are_not(finished):
    metrics = pd.read_csv(finished / "results/metrics.csv").set_index(["dataset", "model"])
    for model in ("memory_bank", "given"):
        boxed, painted = (
            metrics.loc[(name, model)].set_index("metric")["value"] for name in ("boxed", "painted")
        )
        assert not boxed.index.str.startswith(("pixel", "aupro", "dice", "max_dice", "prevalence")).any()
        assert {"pixel_auroc", "aupro_30", "max_dice"} <= set(painted.index)
        assert boxed[[*SENSITIVITY, "image_auroc"]].equals(painted[[*SENSITIVITY, "image_auroc"]])
        assert 0 < boxed[SENSITIVITY[-1]] <= 1


def test_the_referee_says_the_same_of_the_same_maps(finished, tmp_path):
    maps, boxes = finished / "data/maps/test", tmp_path / "boxes.csv"
    listed = (finished / "data/boxes.csv").read_text().replace("test/", "")
    healthy = "".join(f"good/{index}.png,,,,\n" for index in range(3))
    boxes.write_text(listed + healthy)
    out = tmp_path / "out.csv"
    assert main(["evaluate", str(maps), "--boxes", str(boxes), "--out", str(out), "--resamples", "20"]) == 0
    table = pd.read_csv(out)
    theirs = table[table["over"] == "lesions"].set_index("metric")["value"]
    metrics = pd.read_csv(finished / "results/metrics.csv")
    ours = metrics[(metrics["dataset"] == "boxed") & (metrics["model"] == "given")].set_index("metric")["value"]
    assert ours[SENSITIVITY].tolist() == pytest.approx(theirs[SENSITIVITY].tolist())


def test_intervals_tables_figures_and_the_report_have_them(finished):
    intervals = pd.read_csv(finished / "results/intervals.csv").set_index(["dataset", "model", "metric"])
    for name in ("boxed", "painted"):
        rows = [intervals.loc[(name, "memory_bank", metric)] for metric in SENSITIVITY]
        assert all(0 <= row["low"] <= row["value"] <= row["high"] <= 1 for row in rows)
    table = pd.read_csv(finished / "results/tables/lesions.csv")
    assert set(table["dataset"]) == {"boxed", "painted"}
    assert "Left out, as there is no such value of them: boxed." in (finished / "results/tables/table1.md").read_text()
    page = (finished / "results/report.html").read_text()
    assert "boxed has boxes in the place of masks, so no metric of pixels." in page
    assert "Lesions found, ≤ 2 false regions" in page
    for figure in ("froc", "anomaly_maps"):
        drawn = [finished / f"results/figures/{name}/small/{figure}.png" for name in ("boxed", "painted")]
        assert all(path.stat().st_size > 10_000 for path in drawn)


def test_changed_boxes_make_the_manifest_anew_and_no_embedding_of_other_images(finished):
    assert "Nothing to be done" in snakemake(finished, "-n", *RUN).text
    file = finished / "data/boxes.csv"
    before = file.read_text()
    file.write_text(before.replace("29,21,24,19", "29,21,23,19"))
    text = snakemake(finished, "-n", *RUN).text
    assert "rule prepare_dataset:" in text
    assert "wildcards: dataset=painted" not in text.partition("rule collect_metrics")[0]
    file.write_text(before.replace("29,21,24,19", "29,21,-4,19"))
    said = snakemake(finished, *RUN, check=False).text
    assert "four numbers are needed, left, top, width and height, the last two above 0" in said
    assert "Traceback" not in said
