"""A fit that was killed, corrected and run again is the corrected fit, not the rest of the first."""

import yaml
from project_copy import copy_project, kill_when, small_run, snakemake

FIRST = {"step_rate": 0.9, "epochs": 5000}
CORRECTED = {"step_rate": 0.2, "epochs": 2}
MODEL = "results/models/phantoms/classical/dpmm_demo/seed-0.h5"


def configure(folder, fit):
    """The small run with these options of the fit."""
    run = small_run((12, 6, 6), models=["dpmm_demo"], baseline="dpmm_demo", alignment_models=[])
    run["models"]["dpmm_demo"] |= fit
    (folder / "config/fit.yaml").write_text(yaml.safe_dump(run))


def test_a_killed_fit_with_other_options_is_not_resumed(tmp_path):
    arguments = ["--configfile", "config/fit.yaml", "--until", "fit_model"]
    for name in ("corrected", "clean"):
        copy_project(tmp_path / name, "fit", {})
    corrected, clean = tmp_path / "corrected", tmp_path / "clean"
    configure(corrected, FIRST)
    kill_when(corrected, f"{MODEL}.checkpoint", *arguments)
    for folder in (corrected, clean):
        configure(folder, CORRECTED)
        snakemake(folder, *arguments, "--rerun-incomplete")
    assert (corrected / MODEL).read_bytes() == (clean / MODEL).read_bytes()
    assert not (corrected / f"{MODEL}.checkpoint").exists()
    log = (corrected / "results/logs/fit_model/phantoms/classical/dpmm_demo/seed-0.log").read_text()
    assert "it is of other options, data or code: the fit starts anew" in log
    assert "epoch 2:" in log
    assert "rule fit_model:" not in snakemake(corrected, *arguments).text


def test_a_killed_fit_with_the_same_options_is_resumed(tmp_path):
    arguments = ["--configfile", "config/fit.yaml", "--until", "fit_model"]
    copy_project(tmp_path, "fit", {})
    configure(tmp_path, {"epochs": 400})
    kill_when(tmp_path, f"{MODEL}.checkpoint", *arguments)
    snakemake(tmp_path, *arguments, "--rerun-incomplete")
    log = (tmp_path / "results/logs/fit_model/phantoms/classical/dpmm_demo/seed-0.log").read_text()
    assert "Resume the fit after epoch" in log
    assert "epoch 400:" in log
