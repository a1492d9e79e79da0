"""The examples of docs/extending.md: data set, backbone and model as new files of a fresh checkout, run to the end."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from project_copy import copy_project, snakemake

from dinodp.datasets.manifest import SPLITS

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
