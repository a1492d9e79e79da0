"""Names of files, terminals and logs that are not UTF-8: what is written is whole, the text degrades."""

import logging
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scan_phantoms import photo, save_photo

from dinodp.datasets.manifest import read_manifest
from dinodp.datasets.sources import prepare_dataset
from dinodp.datasets.verification import verify_dataset, write_verification
from dinodp.jobs.logs import log_to_file

FIT = ["--backbone", "classical", "--resolution", "112", "--method", "k_means", "components=8", "epochs=1"]
SURROUNDINGS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]
NAMES = [b"caf\xe9.png", "größe − 1.png".encode(), "鼻.png".encode()]


def renamed(path, name):
    path.rename(path.with_name(os.fsdecode(name)))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    for seed in range(4):
        save_photo(folder / f"healthy/{seed}.png", photo(seed))
    for number, name in enumerate(NAMES):
        renamed(save_photo(folder / f"new/{number}.png", photo(20 + number, spot=True)), name)
        mask = np.zeros((80, 112), np.uint8)
        mask[25:35, 55:65] = 255
        renamed(save_photo(folder / f"masks/{number}.png", mask), name)
    return folder


@pytest.mark.parametrize("surroundings", SURROUNDINGS, ids=["ascii", "latin-1", "C"])
def test_from_fit_to_evaluation(world, tmp_path, surroundings):
    def run(*arguments):
        command = [sys.executable, "-m", "dinodp.cli", *map(os.fspath, arguments)]
        done = subprocess.run(command, env={**os.environ, **surroundings}, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        return done.stdout

    run("fit", world / "healthy", "--out", tmp_path / "m.h5", *FIT)
    run("predict", world / "new", "--model", tmp_path / "m.h5", "--out", tmp_path / "maps", "--masks", "--overlays")
    masks = ["--masks", world / "masks", "--resamples", "3"]
    text = run("evaluate", tmp_path / "maps", *masks, "--out", tmp_path / "t.csv")
    assert b"pixel_auroc" in text
    assert len(pd.read_csv(tmp_path / "t.csv")) > 5
    scans = pd.read_csv(tmp_path / "maps/scans.csv")["scan"].tolist()
    assert len(scans) == 3
    if "LC_ALL" not in surroundings:  # there, file names have no letters beyond ASCII
        assert sorted(scans) == sorted(["caf\\xe9", "größe − 1", "鼻"])
        assert "größe − 1" in (tmp_path / "maps/gallery.html").read_text(encoding="utf-8")


def test_the_pipeline_takes_images_whose_names_are_not_utf_8(tmp_path):
    for seed in range(3):
        save_photo(tmp_path / f"d/train/good/{seed}.png", photo(seed))
        save_photo(tmp_path / f"d/test/good/{seed}.png", photo(10 + seed))
    renamed(save_photo(tmp_path / "d/train/good/x.png", photo(4)), NAMES[0])
    renamed(save_photo(tmp_path / "d/test/bad/x.png", photo(20, spot=True)), NAMES[0])
    renamed(
        save_photo(tmp_path / "d/ground_truth/bad/x.png", (photo(20, spot=True) > 180).astype(np.uint8) * 255),
        b"caf\xe9_mask.png",
    )
    entry = {"source": "image_folder", "root": str(tmp_path / "d")}
    frame = read_manifest(prepare_dataset("x", entry, tmp_path / "out"))
    assert sum(os.fsencode(path).endswith(NAMES[0]) for path in frame["image"]) == 2
    report, checksums = verify_dataset(frame, {})
    assert report["deviations"] == {}
    paths = [tmp_path / f"v.{kind}" for kind in ("json", "md", "csv")]
    write_verification("x", report, checksums, *paths, made_from={})
    assert NAMES[0] in paths[2].read_bytes()


def test_a_log_is_utf_8_in_every_locale(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    handlers = logging.getLogger().handlers[:]
    try:
        log_to_file(str(tmp_path / "job.log"))
        print("− 鼻 caf\udce9", file=sys.stderr)
    finally:
        logging.getLogger().handlers[:] = handlers
    assert (tmp_path / "job.log").read_text(encoding="utf-8") == "− 鼻 caf\\udce9\n"
