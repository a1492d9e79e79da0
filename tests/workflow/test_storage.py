"""Inputs and outputs behind a storage plugin of Snakemake: the one for another folder of the file system."""

import json
import shutil

import pytest
from project_copy import copy_project, small_run, snakemake

RUN = small_run((12, 6, 6), models=["dpmm_demo"], bootstrap_resamples=20, tables=["table1"], figures=["anomaly_maps"])


@pytest.mark.skipif(shutil.which("rsync") is None, reason="the storage plugin needs rsync")
def test_the_whole_dag_with_its_results_in_a_storage(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "storage").mkdir()
    folder = copy_project(tmp_path / "project", "tiny", RUN)
    options = ["--configfile", "config/tiny.yaml", "--default-storage-provider", "fs"]
    options += ["--default-storage-prefix", str(tmp_path / "storage")]
    snakemake(folder, *options)
    assert not (folder / "results").exists()
    results = tmp_path / "storage/results"
    assert "Test run" in (results / "report.html").read_text()
    metrics = json.loads((results / "metrics/phantoms/classical/dpmm_demo/seed-0.json").read_text())
    assert metrics["metrics"]["cosine"]["gt0"]["pixel_auroc"] > 0.5
    assert "Nothing to be done" in snakemake(folder, *options).text
