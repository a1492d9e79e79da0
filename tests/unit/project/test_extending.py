"""The worked examples of docs/extending.md, run as they stand there."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from project_copy import copy_project, small_run, snakemake

from dinodp import store
from dinodp.datasets.manifest import SPLITS, read_manifest, select, write_manifest
from dinodp.datasets.sources.options import complete
from dinodp.embeddings import EmbeddingReader, embed_split
from dinodp.errors import InputError
from dinodp.families import FAMILIES, fit_model, load_model, score_split
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


def test_dataset(example, tmp_path):
    source = example("dataset")
    generator = np.random.default_rng(0)
    for split in SPLITS:
        masks = np.zeros((3, 8, 8), dtype=np.uint8)
        masks[2] = 255 * (split == "test")
        np.savez(tmp_path / f"{split}.npz", images=generator.integers(0, 256, (3, 8, 8), dtype=np.uint8), masks=masks)
    frame = source["prepare"](complete({"root": str(tmp_path)}, source["OPTIONS"]), tmp_path / "out")
    write_manifest(frame, tmp_path / "out/manifest.csv")
    assert select(read_manifest(tmp_path / "out/manifest.csv"), "test")["label"].tolist().count("anomalous") == 1
    (tmp_path / "valid.npz").unlink()
    with pytest.raises(InputError, match=r"there is no .*valid.npz; the root must hold train, valid, test"):
        source["prepare"]({"root": str(tmp_path)}, tmp_path / "other")
    assert not (tmp_path / "other/slices").exists()


def test_backbone(example, tmp_path):
    backbone = example("backbone")["MeanColourBackbone"](resolution=28)
    Image.new("RGB", (28, 28), (255, 0, 51)).save(tmp_path / "a.png")
    frame = pd.DataFrame({"image": [str(tmp_path / "a.png")], "image_sha256": ["a"]})
    embed_split(frame, backbone, tmp_path / "tokens.h5", {}, workers=1)
    tokens = EmbeddingReader(tmp_path / "tokens.h5", normalise=False, grid=None).read([0])
    np.testing.assert_allclose(tokens, np.broadcast_to([1.0, 0.0, 0.2], (1, 2, 2, 3)), atol=1e-3)


def test_model(example, tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "prototype", example("model")["PrototypeFamily"])
    with store.writing(tmp_path / "tokens.h5", "embeddings", {}) as file:
        data = np.random.default_rng(0).normal(1.0, [1.0, 2.0, 3.0], (6, 4, 4, 3)).astype(np.float16)
        data[5, 0, 0] = [9, 1, 20]
        file.create_dataset("tokens", data=data)
    reader = EmbeddingReader(tmp_path / "tokens.h5", normalise=False, grid=None)
    options = {"family": "prototype", "scores": ["euclidean"]}
    cost = fit_model(tmp_path / "model.h5", options, reader, reader, seed=0, device="cpu")
    model = load_model(tmp_path / "model.h5", reader, device="cpu")
    score_split(model, reader, pd.DataFrame({"label": ["normal"] * 6}), tmp_path / "scores.h5")
    x = data.reshape(-1, 3).astype(np.float64)
    found = store.read_maps(tmp_path / "scores.h5")["euclidean"]
    np.testing.assert_allclose(found.ravel(), np.linalg.norm(x - x.mean(axis=0), axis=1), rtol=1e-4)
    assert np.unravel_index(found.argmax(), found.shape) == (5, 0, 0)
    assert cost == {"model_mib": 12 / 2**20, "active_components": 1}


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
        f"regions.{kind}" for kind in ("csv", "md", "tex")
    }
    frame = pd.read_csv(extended / "tables/regions.csv")
    values = pd.read_csv(extended / "metrics.csv").query("metric == 'aupro_30' and model == 'memory_bank'")["value"]
    assert frame.set_index("model").loc["memory_bank", "aupro_30_mean"] == pytest.approx(100 * values.mean(), rel=1e-5)
    text = (extended / "tables/regions.md").read_text()
    assert "AUPRO, FPR ≤ 30 %" in text
    assert text.strip() in (extended / "summary.md").read_text()


def test_a_name_that_no_file_has_is_refused(tmp_path):
    for key, known in (("figures", "anomaly_maps, component_maps"), ("tables", "costs, table1")):
        folder = copy_project(tmp_path / key, "tiny", small_run((2, 2, 2), **{key: ["missing"]}))
        result = snakemake(folder, "-n", "--configfile", "config/tiny.yaml", check=False)
        assert f"Unknown name 'missing' under run.{key}: choose from {known}" in result.text
