import numpy as np
import pytest

from dinodp import store
from dinodp.cli import main


def test_info_describes_an_hdf5_file(tmp_path, capsys):
    path = tmp_path / "scores.h5"
    store.write_maps(
        path, {"seed": 3}, {"cosine": np.zeros((2, 4, 4), np.float32)}, {"cosine": np.zeros(2, np.float32)}
    )
    assert main(["info", str(path)]) == 0
    text = capsys.readouterr().out
    assert "cosine: float32 [2, 4, 4]" in text
    assert 'config: {"seed": 3}' in text


def test_info_counts_a_manifest(tmp_path, capsys):
    path = tmp_path / "manifest.csv"
    path.write_text("split,label\ntrain,normal\ntrain,normal\ntest,anomalous\n")
    assert main(["info", str(path)]) == 0
    assert "train, normal: 2 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none.h5", None, "There is no file"),
        ("a.txt", "x", "data files end in .csv, .h5, .json"),
        ("a.json", "{", "not valid JSON"),
        ("a.csv", "", "not a readable CSV table"),
        ("a.h5", "x", "not a readable HDF5 file"),
    ],
)
def test_a_mistake_ends_in_one_sentence(tmp_path, capsys, name, content, sentence):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    assert main(["info", str(path)]) == 1
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
