"""Maps of an independent script and of anomalib beside the project's models, in every table, figure and the report."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from project_copy import ROOT, copy_project, picture, small_run, snakemake

sys.path.insert(0, str(ROOT / "examples"))
RUN = ("--configfile", "config/external.yaml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    import pca_residual

    run = small_run((1, 1, 1), datasets=["photos"], embeddings=["small"], models=["memory_bank", "pca", "anomalib"])
    run["run"] |= {"alignment_models": [], "figures": ["anomaly_maps", "score_histograms", "roc_pr_curves", "froc"]}
    run["run"] |= {"bootstrap_resamples": 20, "mask_rules": ["gt0"]}
    run["datasets"] = {"photos": {"source": "image_folder", "root": "data/photos", "metadata": "data/meta.csv"}}
    run["embeddings"] = {"small": {"backbone": "classical", "resolution": 112}}
    run["models"] = {
        "pca": {"family": "external", "maps": "data/maps"},
        "anomalib": {"family": "external", "maps": "data/theirs"},
    }
    folder = copy_project(tmp_path_factory.mktemp("external"), "external", run)
    data = folder / "data/photos"
    for place, first, count in (("train/good", 0, 4), ("valid/good", 10, 2), ("test/good", 20, 3)):
        for index in range(count):
            picture(data / f"{place}/{index}.png", first + index)
    lines = [f"{index},{'AB'[index % 2]}" for index in [*range(4), *range(10, 12), *range(20, 23)]]
    (folder / "data/meta.csv").write_text("image,scanner\n" + "\n".join(lines) + "\n")
    (data / "ground_truth/spot").mkdir(parents=True)
    for index in range(4):
        spot = picture(data / f"test/spot/{index}.png", 50 + index, True)
        Image.fromarray(spot.astype(np.uint8) * 255).save(data / f"ground_truth/spot/{index}_mask.png")
    images = [str(data / split) for split in ("valid", "test")]
    pca_residual.main(["--train", str(data / "train/good"), "--images", *images, "--out", str(folder / "data/maps")])
    with np.load(ROOT / "tests/data/anomalib/maps.npz") as theirs:
        for name in theirs:
            (folder / "data/theirs" / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"data/theirs/{name}.npy", theirs[name])
    snakemake(folder, *RUN)
    return folder


def test_it_is_in_every_table_and_in_the_report(finished):
    for table in ("metrics", "intervals", "differences", "strata", "costs", "tables/table1"):
        frame = pd.read_csv(finished / f"results/{table}.csv")
        assert "pca" in frame.to_string(), table
        assert "anomalib" in frame.to_string(), table
    metrics = pd.read_csv(finished / "results/metrics.csv").set_index(["model", "metric"])["value"]
    assert metrics["pca", "pixel_auroc"] > 0.8
    for name, value in json.loads((ROOT / "tests/data/anomalib/values.json").read_text()).items():
        assert metrics["anomalib", name] == pytest.approx(value, abs=2e-5), name
    page = (finished / "results/report.html").read_text()
    assert "pca" in page
    assert "froc" in page
    assert (finished / "results/figures/photos/small/froc.png").stat().st_size > 10_000
    assert (finished / "results/figures/photos/small/anomaly_maps.png").stat().st_size > 10_000


def test_metadata_gives_strata_and_a_bias_table_on_the_page(finished):
    strata = pd.read_csv(finished / "results/strata.csv")
    scanners = strata[strata["property"] == "scanner"]
    assert set(scanners["stratum"]) == {"A", "B"}
    assert "healthy_share_above_fpr05" in set(scanners["metric"])
    assert "Healthy pixels above the threshold, FPR 5 %" in (finished / "results/report.html").read_text()
    table = finished / "data/meta.csv"
    table.write_text(table.read_text().replace("A", "C"))
    text = snakemake(finished, "-n", *RUN).text
    assert "rule describe_cases:" in text
    assert "rule embed:" not in text
    table.write_text(table.read_text().replace("C", "A"))
    snakemake(finished, "--touch", *RUN)


def test_maps_that_change_are_scored_anew_and_one_that_is_missing_is_named(finished):
    assert "Nothing to be done" in snakemake(finished, "-n", *RUN).text
    np.save(finished / "data/maps/test/spot/0.npy", np.zeros((96, 112)))
    text = snakemake(finished, "-n", *RUN).text
    assert "rule score:" in text
    assert "rule embed:" not in text
    assert "model=memory_bank" not in text.partition("rule collect_metrics")[0]
    (finished / "data/maps/test/spot/0.npy").rename(finished / "data/spare.npy")
    said = snakemake(finished, *RUN, check=False).text
    assert "holds no map of the image" in said
    assert "Traceback" not in said
