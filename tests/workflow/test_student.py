"""A student in the DAG: trained from the data set's normal images, then a backbone as any other."""

import json

import pandas as pd
import pytest
from project_copy import copy_project, small_run, snakemake

RUN = ("--configfile", "config/student.yaml")
TRAINING = {
    "rounds": 2, "images_per_round": 4, "passes": 1, "images_per_step": 2, "stem": 8, "width": 16, "blocks": 1
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = small_run(
        (4, 2, 4), models=["memory_bank"], alignment_models=[], figures=["anomaly_maps"], tables=["table1", "costs"],
        embeddings=["small", "small_student"], distillation=TRAINING, bootstrap_resamples=0,
    )  # fmt: skip
    run["embeddings"] = {
        "small": {"backbone": "classical", "resolution": 112},
        "small_student": {"backbone": "results/students/phantoms/small", "resolution": 112},
    }
    folder = copy_project(tmp_path_factory.mktemp("student"), "student", run)
    said = snakemake(folder, "-n", *RUN).text
    assert said.count("rule distill_backbone:") == 1
    snakemake(folder, *RUN)
    return folder


def test_the_student_is_trained_once_and_evaluated_as_any_backbone(finished):
    said = json.loads((finished / "results/students/phantoms/small/student.json").read_text())
    assert said["data"]["name"] == "phantoms"
    assert len(said["data"]["images"]) == 4
    assert not list((finished / "results/students/phantoms").glob("*.checkpoint"))
    metrics = pd.read_csv(finished / "results/metrics.csv")
    assert {"small", "small_student"} == set(metrics["embedding"])
    assert "Nothing to be done" in snakemake(finished, "-n", *RUN).text


def test_the_report_has_its_loss_and_cost(finished):
    page = (finished / "results/report.html").read_text()
    assert "Students" in page
    assert "Loss of the student of small" in page
    assert "minutes of CPU time" in page


def test_a_change_of_the_training_makes_the_student_and_its_embeddings_anew(finished):
    (finished / "config/other.yaml").write_text("run: {distillation: {seed: 1}}\n")
    text = snakemake(finished, "-n", *RUN, "config/other.yaml").text
    assert text.count("rule distill_backbone:") == 1
    assert text.count("rule embed:") == 3  # the student's splits, not the teacher's
