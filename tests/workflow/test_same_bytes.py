"""One configuration gives one set of bytes, wherever and however it runs (docs/reliability.md, same bytes)."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from project_copy import copy_project, small_run, snakemake

SAME = small_run(
    (8, 4, 8), models=["memory_bank", "dpmm_demo"], figures=["anomaly_maps", "training_history"], tables=["table1"]
)
OTHERWISE = {  # keys that change no result
    **SAME,
    "embeddings": {"classical": {"batch_size": 3}},
    "run": {**SAME["run"], "cache": "memory"},
}
COSTS = ("results/costs.csv", "results/costs.csv.origin.json")


def results(folder):
    """Content of every result but logs, and what a job cost, by path."""
    files = [path for path in (folder / "results").rglob("*") if path.is_file() and "logs" not in path.parts]
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in files if not path.name.endswith(".cost.json")
    }


@pytest.fixture
def umask():
    """As before at the end."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def environment(**values):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **values}


def test_one_configuration_gives_one_set_of_bytes(tmp_path, umask):
    """Another folder, umask, language, time zone, order of hashes, number of cores and threads, batches and cache.

    Then files of another run under their names, with their times: they are refused.
    """
    one, other = tmp_path / "one", tmp_path / "another folder"
    for folder in (one, other):
        copy_project(folder, "same", SAME)
    here = environment(TZ="UTC", LC_ALL="C.UTF-8", PYTHONHASHSEED="1")
    snakemake(one, "--configfile", "config/same.yaml", environment=here)
    umask(0o077)
    there = environment(TZ="Asia/Kathmandu", LC_ALL="C", PYTHONHASHSEED="2", OMP_NUM_THREADS="1")
    (other / "config/otherwise.yaml").write_text(yaml.safe_dump(OTHERWISE))
    snakemake(other, "--cores", "1", "--configfile", "config/otherwise.yaml", environment=there)
    for name in COSTS:  # times, which table and report state
        shutil.copy(one / name, other / name)
    snakemake(other, "--cores", "1", "--configfile", "config/same.yaml", environment=there)
    expected, found = results(one), results(other)
    assert set(found) == set(expected)
    assert len(expected) > 40
    assert [name for name in expected if found[name] != expected[name]] == []

    (one / "config/changed.yaml").write_text(yaml.safe_dump({"models": {"dpmm_demo": {"step_rate": 0.9}}}))
    configuration = ["--configfile", "config/same.yaml", "config/changed.yaml"]
    as_if_new = ["--rerun-triggers", "mtime", "--forcerun", "evaluate", "--until", "evaluate"]
    refused = snakemake(one, *as_if_new, *configuration, check=False, environment=here)
    assert refused.returncode != 0
    assert "was made for another model, scores than the configuration asks for here" in refused.text
