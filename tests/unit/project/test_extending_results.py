"""The worked examples of docs/extending.md: a metric, a figure and a table, as new files of a fresh checkout."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from project_copy import copy_project, small_run, snakemake

from dinodp.metrics.pixels import PixelCounter


@pytest.fixture
def example(root):
    """Run the code block of a name and return what it defines."""

    def run(name):
        text = (root / "docs/extending.md").read_text()
        (code,) = re.findall(rf"<!-- example: {name}(?:, \S+)? -->\n```python\n(.*?)```", text, flags=re.S)
        defined = {}
        exec(compile(code, f"extending.md, {name}", "exec"), defined)
        return defined

    return run


ADDED = ("metric", "figure", "table")


@pytest.fixture(scope="module")
def extended(root, tmp_path_factory):
    """A fresh checkout with the examples of metric, figure and table copied into it, and a tiny run that names them."""
    run = {"figures": ["image_scores"], "tables": ["regions"], "models": ["memory_bank", "dpmm_demo"]}
    settings = {**run, "bootstrap_resamples": 50, "alignment_models": [], "mask_rules": ["gt0"]}
    folder = copy_project(tmp_path_factory.mktemp("extended"), "tiny", small_run((8, 6, 32), epochs=1, **settings))
    text = (root / "docs/extending.md").read_text()
    for name in ADDED:
        ((path, code),) = re.findall(rf"<!-- example: {name}, (\S+) -->\n```python\n(.*?)```", text, flags=re.S)
        assert not (folder / path).exists()
        (folder / path).write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(folder / "scripts")}  # the checkout's own library
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    snakemake(folder, "--configfile", "config/tiny.yaml", environment=environment)
    return folder / "results"


def test_a_metric_is_everywhere(extended):
    for name in ("metrics", "intervals", "differences"):
        frame = pd.read_csv(extended / f"{name}.csv")
        rows = frame[frame["metric"] == "fpr_at_95_tpr"]
        assert "dpmm_demo" in set(rows["model"]), name
        assert rows["value"].between(0 if name != "differences" else -1, 1).all()
        if name == "intervals":
            assert (rows["low"] <= rows["high"]).all()
            assert (rows["low"] < rows["high"]).any()
    page = (extended / "report.html").read_text()
    assert '<td class="metric">FPR at 95 % TPR (lower is better)</td>' in page


def test_a_metric_is_what_counting_says(example):
    """Scores 12 to 15 and 9 are anomalous: 95 % of five are all, and the normal ones above 9 are 10 and 11."""
    anomalous = np.zeros((4, 4), dtype=bool)
    anomalous[3], anomalous[2, 1] = True, True
    counter = PixelCounter(np.arange(16, dtype=np.float32), {}, n_subjects=1)
    counter.add(np.arange(16, dtype=np.float32).reshape(4, 4), anomalous)
    compute = example("metric")["compute"]
    assert compute(counter.histograms.cumulative()) == pytest.approx(2 / 11)
    assert compute(counter.subjects.weighted(np.ones((3, 1)))) == pytest.approx([2 / 11] * 3, abs=1e-9)


def test_a_figure_is_drawn(extended):
    folder = extended / "figures/phantoms/classical"
    assert sorted(path.name for path in folder.iterdir()) == ["image_scores.pdf", "image_scores.png"]
    with Image.open(folder / "image_scores.png") as picture:
        assert picture.width == pytest.approx(180 / 25.4 * 300, abs=2)
    assert "Image scores" in (extended / "report.html").read_text()


def test_a_table_is_made(extended):
    assert {path.name for path in (extended / "tables").iterdir()} == {
        f"regions.{kind}{end}" for kind in ("csv", "md", "tex") for end in ("", ".origin.json")
    }
    frame = pd.read_csv(extended / "tables/regions.csv")
    values = pd.read_csv(extended / "metrics.csv").query("metric == 'aupro_30' and model == 'memory_bank'")["value"]
    assert frame.set_index("model").loc["memory_bank", "aupro_30_mean"] == pytest.approx(100 * values.mean(), rel=1e-5)
    text = (extended / "tables/regions.md").read_text()
    assert "AUPRO, FPR ≤ 30 %" in text
    assert text.strip() in (extended / "summary.md").read_text()


def test_a_name_that_no_file_has_is_refused(tmp_path):
    for key, known in (("figures", "anomaly_maps, component_maps"), ("tables", "costs, lesions, table1")):
        folder = copy_project(tmp_path / key, "tiny", small_run((2, 2, 2), **{key: ["missing"]}))
        result = snakemake(folder, "-n", "--configfile", "config/tiny.yaml", check=False)
        assert f"Unknown name 'missing' under run.{key}: choose from {known}" in result.text
