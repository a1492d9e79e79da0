"""A prediction that was killed goes on where it stopped, and nobody takes half of it for the whole."""

import json
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest
from scan_phantoms import FAST_FIT, WINDOW, head, healthy_folder, lesion_mask, save

from dinodp.cli import main
from dinodp.jobs.files import UNFINISHED
from dinodp.scans.reading.folder import find_scans

KILLED = """
import os, sys
from pathlib import Path
import dinodp.scans.writing.prediction as prediction
from dinodp.jobs.files import _own_name
real = prediction._predict
def killed(name, *rest):
    if name == "c":
        _own_name(Path(sys.argv[1]) / "maps" / "c.nii.gz").touch()
        os.kill(os.getpid(), 9)
    return real(name, *rest)
prediction._predict = killed
from dinodp.cli import main
main(sys.argv[2:])
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    healthy_folder(folder / "healthy", 3)
    assert main(["fit", str(folder / "healthy"), "--out", str(folder / "m.h5"), *FAST_FIT, *WINDOW]) == 0
    for seed, name in enumerate("abcd"):
        save(folder / f"new/{name}.nii.gz", head(20 + seed, lesion=True))
        save(folder / f"truth/{name}.nii.gz", lesion_mask().astype("uint8"))
    return folder


def command(world, out, *options):
    return ["predict", str(world / "new"), "--model", str(world / "m.h5"), "--out", str(out), "--masks", *options]


def killed(world, out):
    """A run that was killed hard in its third scan."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(out), *command(world, out)], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    return out


def files(out):
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def scored(monkeypatch):
    """The names of the scans that are scored from now on."""
    import dinodp.scans.writing.prediction as prediction

    names, real = [], prediction._predict
    monkeypatch.setattr(prediction, "_predict", lambda name, *rest: (names.append(name), real(name, *rest))[1])
    return names


def test_a_killed_run_goes_on_and_gives_what_an_unbroken_one_gives(world, tmp_path, monkeypatch, capsys):
    out = killed(world, tmp_path / "out")
    assert not (out / "scans.csv").exists()
    assert (out / UNFINISHED).is_dir()
    again = scored(monkeypatch)
    assert main(command(world, out)) == 0
    assert again == ["c", "d"]
    assert "2 scans were scored before" in capsys.readouterr().err
    assert main(command(world, tmp_path / "alone")) == 0
    assert files(out) == files(tmp_path / "alone")


def test_evaluation_says_what_is_missing(world, tmp_path, capsys):
    out = killed(world, tmp_path / "out")
    for arguments in (["evaluate", str(out)], ["compare", str(out), str(out)]):
        assert main([*arguments, "--masks", str(world / "truth")]) == 1
        assert "out is unfinished: 2 of 4 scans are missing, for example c; the same" in capsys.readouterr().err


def test_what_changed_is_scored_again(world, tmp_path, monkeypatch):
    """A scan with other bytes, and one whose map is no longer as it was written."""
    out = killed(world, tmp_path / "out")
    (out / "maps/a.nii.gz").write_bytes(b"x")
    changed = world / "new/b.nii.gz"
    before = changed.read_bytes()
    save(changed, head(99))
    again = scored(monkeypatch)
    assert main(command(world, out)) == 0
    assert again == ["a", "b", "c", "d"]
    changed.write_bytes(before)


def test_files_of_scans_that_are_gone_go_as_well(world, tmp_path):
    out = killed(world, tmp_path / "out")
    gone = world / "new/a.nii.gz"
    before = gone.read_bytes()
    gone.unlink()
    assert main(command(world, out)) == 0
    assert sorted(path.name for path in (out / "maps").iterdir()) == ["b.nii.gz", "c.nii.gz", "d.nii.gz"]
    assert pd.read_csv(out / "scans.csv")["scan"].tolist() == ["b", "c", "d"]
    gone.write_bytes(before)


def test_other_options_do_not_go_on(world, tmp_path, capsys):
    out = killed(world, tmp_path / "out")
    assert main(command(world, out, "--threshold", "fpr10")) == 1
    assert "holds an unfinished prediction with another model or other options" in capsys.readouterr().err
    assert main(command(world, out, "--threshold", "fpr10", "--overwrite")) == 0
    assert json.loads((out / "predictions.json").read_text())["threshold"] == "fpr10"
    assert not (out / UNFINISHED).exists()
    assert not list(out.rglob("part.*"))


def test_an_interrupted_run_goes_on_as_well(world, tmp_path, monkeypatch):
    """It has tables already; where nothing was scored, nothing is left."""
    import dinodp.scans.writing.prediction as prediction

    real = prediction._predict

    def interrupted(name, *rest):
        if name == stop:
            raise KeyboardInterrupt
        return real(name, *rest)

    monkeypatch.setattr(prediction, "_predict", interrupted)
    stop = "a"
    assert main(command(world, tmp_path / "nothing")) == 130
    assert not (tmp_path / "nothing").exists()
    stop = "d"
    assert main(command(world, tmp_path / "out")) == 130
    assert len(pd.read_csv(tmp_path / "out/scans.csv")) == 3
    stop = ""
    again = scored(monkeypatch)
    assert main(command(world, tmp_path / "out")) == 0
    assert again == ["d"]


def test_an_unfinished_folder_holds_no_scans(world, tmp_path):
    save(tmp_path / "all/x.nii.gz", head(3))
    killed(world, tmp_path / "all/out")
    assert [name for name, _ in find_scans(tmp_path / "all")] == ["x"]


def test_a_failed_scan_is_said_to_be_in_no_number(world, tmp_path, capsys):
    (tmp_path / "new").mkdir()
    for name in "ab":
        (tmp_path / f"new/{name}.nii.gz").write_bytes((world / f"new/{name}.nii.gz").read_bytes())
    (tmp_path / "new/c.nii.gz").write_bytes(b"x")
    new = ["predict", str(tmp_path / "new"), "--model", str(world / "m.h5"), "--out", str(tmp_path / "out")]
    assert main(new) == 1
    assert main(["evaluate", str(tmp_path / "out"), "--masks", str(world / "truth"), "--resamples", "3"]) == 0
    assert "Not counted, since `dinodp predict` could not score them: 1 (such as c)." in capsys.readouterr().out
