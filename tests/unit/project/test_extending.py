"""The worked examples of docs/extending.md: as new files of a fresh checkout that is run to the end, or as they are."""

import re
import subprocess
import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from project_copy import copy_project, snakemake

from dinodp.datasets.manifest import SPLITS
from dinodp.metrics import evaluate
from dinodp.metrics.streaming import PIXEL_METRICS
from dinodp.report.figures import FigureData, ModelData, save_figure

FILES = {
    "dataset": "datasets/sources/npz.py",
    "backbone": "backbones/mean_colour.py",
    "model": "families/prototype.py",
}


def code_of(name):
    (code,) = re.findall(
        rf"<!-- example: {name} -->\n```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(), flags=re.S
    )
    return code


@pytest.fixture
def example():
    """Run the code block of a name and return what it defines."""

    def run(name):
        defined = types.ModuleType(name)
        exec(compile(code_of(name), f"extending.md, {name}", "exec"), defined.__dict__)
        return vars(defined)

    return run


RUN = {
    "datasets": {"made": {"source": "npz", "root": "data/made", "first": 6}},
    "embeddings": {"colours": {"backbone": "mean_colour", "resolution": 56}},
    "models": {"prototype": {"family": "prototype", "normalise": False}},
    "run": {
        "title": "Additions",
        "note": "One file each.",
        "datasets": ["made"],
        "embeddings": ["colours"],
        "models": ["memory_bank", "prototype"],
        "tables": ["table1", "costs"],
        "figures": ["anomaly_maps"],
        "bootstrap_resamples": 20,
    },
}


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A fresh checkout with the three files, and images for the new source."""
    folder = copy_project(tmp_path_factory.mktemp("extended"), "additions", RUN)
    for name, path in FILES.items():
        (folder / "scripts/dinodp" / path).write_text(code_of(name))
    (folder / "data/made").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split in SPLITS:
        images = generator.integers(0, 100, (8, 64, 64), dtype=np.uint8)
        masks = np.zeros((8, 64, 64), dtype=np.uint8)
        if split == "test":
            masks[3:, 20:40, 20:40] = 255
            images[masks > 0] = 250
        np.savez(folder / f"data/made/{split}.npz", images=images, masks=masks)
    return folder


def test_a_data_set_a_backbone_and_a_model_are_one_file_each(extended, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(extended / "scripts"))  # the library of the checkout, not the installed one
    snakemake(extended, "--configfile", "config/additions.yaml")
    metrics = pd.read_csv(extended / "results/metrics.csv")
    found = metrics[(metrics["metric"] == "pixel_auroc") & (metrics["mask_rule"] == "gt0")].set_index("model")
    assert found.loc["prototype", "score"] == "euclidean"
    assert found.loc["prototype", "value"] > 0.8
    assert "prototype" in (extended / "results/tables/table1.md").read_text()
    assert "prototype" in (extended / "results/report.html").read_text()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"datasets": {"made": {"frist": 3}}}, "datasets.made: unknown key 'frist' for the source 'npz'"),
        ({"embeddings": {"colours": {"layers": [1]}}}, "embeddings.colours: unknown key 'layers' for a back"),
        ({"models": {"prototype": {"power": 0}}}, "models.prototype.power: 0 is not above 0"),
        ({"models": {"prototype": {"scores": ["cosine"]}}}, "the family prototype has no score 'cosine'; choose"),
    ],
)
def test_their_keys_are_checked_before_the_first_job(extended, change, sentence):
    kind, entries = next(iter(change.items()))
    lines = "".join(f"  {name}: {entry}\n" for name, entry in entries.items())
    (extended / "config/wrong.yaml").write_text(f"{kind}:\n{lines}")
    files = ["config/additions.yaml", "config/wrong.yaml"]
    result = snakemake(extended, "-n", "--configfile", *files, check=False)
    assert result.returncode != 0
    assert sentence in result.text


def test_their_keys_are_documented(extended):
    command = [sys.executable, "-m", "dinodp.configuration.page"]
    done = subprocess.run(
        command, cwd=extended / "scripts", capture_output=True, text=True, check=True, env={"PYTHONPATH": "."}
    )
    for part in ("### source: npz", "### backbone: mean_colour", "### family: prototype", "`power`"):
        assert part in done.stdout


def test_metric(example, monkeypatch):
    monkeypatch.setitem(PIXEL_METRICS, "fpr_at_95_tpr", example("metric")["fpr_at_95_tpr"])
    maps = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    mask = np.zeros((1, 4, 4), dtype=np.uint8)
    mask[0, 3] = 255  # scores 12 to 15
    mask[0, 2, 1] = 255  # score 9: needed for 95 % of five pixels; the normal ones above it are 10 and 11
    assert evaluate(maps, mask, maps)["fpr_at_95_tpr"] == pytest.approx(2 / 11)


def test_figure(example, tmp_path):
    scores = {"cosine": np.linspace(0, 1, 6, dtype=np.float32)}
    model = ModelData("bank", "memory_bank", {"cosine": np.zeros((6, 2, 2), np.float32)}, image_scores=scores)
    manifest = pd.DataFrame({"label": ["normal"] * 3 + ["anomalous"] * 3})
    data = FigureData("title", manifest, [model], read_tokens=lambda rows: torch.zeros(1))
    save_figure(example("figure")["draw"](data), tmp_path / "f.png", tmp_path / "f.pdf")
    assert (tmp_path / "f.png").stat().st_size > 5000
