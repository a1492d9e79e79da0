"""`dinodp distill` on photographs: a student that fit, predict and export take as any backbone."""

import json

import numpy as np
import pytest
from PIL import Image

from dinodp.cli import main

SMALL = ["rounds=2", "images_per_round=4", "passes=4", "images_per_step=2", "stem=8", "width=16", "blocks=1"]
SMALL += ["learning_rate=0.5"]  # so few steps must move it, or all patches would look alike
TEACHER = ["--backbone", "classical", "--resolution", "112", "--held-out", "0.3"]
FIT = ["--resolution", "112", "--method", "eb_mixture", "components=4", "--held-out", "0.3"]


def photographs(folder, first=0):
    folder.mkdir()
    for index in range(first, first + 6):
        texture = np.random.default_rng(index).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(texture).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distill")
    photographs(folder / "healthy")
    command = ["distill", str(folder / "healthy"), "--out", str(folder / "student"), *TEACHER, "--training", *SMALL]
    assert main(command) == 0
    return folder


def test_fit_predict_and_export_take_the_student(made, capsys):
    model, student = str(made / "model.h5"), str(made / "student")
    assert main(["fit", str(made / "healthy"), "--out", model, "--backbone", student, *FIT]) == 0
    assert "was trained on other scans" not in capsys.readouterr().err
    assert main(["predict", str(made / "healthy"), "--model", model, "--out", str(made / "maps")]) == 0
    assert main(["info", model]) == 0
    assert "student" in capsys.readouterr().out
    pytest.importorskip("onnxscript")
    assert main(["export", model, "--onnx", str(made / "model.onnx")]) == 0


def test_scans_that_fit_holds_out_are_new_to_the_student_too(made):
    said = json.loads((made / "student/student.json").read_text())
    assert len(said["data"]["images"]) == 4
    assert said["data"]["name"] == "4 scans, 2 held out"
    assert said["options"]["rounds"] == 2


def test_other_scans_are_named_in_one_sentence(made, tmp_path, capsys):
    other, model = photographs(tmp_path / "other", 50), str(tmp_path / "m.h5")
    assert main(["fit", str(other), "--out", model, "--backbone", str(made / "student"), *FIT]) == 0
    assert "was trained on other scans than these (4 scans, 2 held out)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--training", "rounds"], "--training: 'rounds' is no option of the form KEY=VALUE."),
        (["--training", "rounds=0"], "--training.rounds: 0 is below the least allowed, 1."),
        (["--training", "steps=3"], "--training: unknown key 'steps'; it has rounds,"),
        ([], "student exists already: choose another name, or add --overwrite."),
    ],
)
def test_mistakes_are_said_in_one_sentence(made, capsys, given, said):
    command = ["distill", str(made / "healthy"), "--out", str(made / "student"), *TEACHER, *given]
    assert main(command) == 1
    assert said in capsys.readouterr().err
