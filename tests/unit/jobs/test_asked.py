"""What a result was made for is compared with what the workflow asks for at its place."""

import h5py
import numpy as np
import pytest

from dinodp import store
from dinodp.errors import InputError
from dinodp.jobs.asked import ask, asked, made_for, names_in
from dinodp.jobs.origin import read_result, read_table, write_result, write_table

TOKENS, TABLE, RESULT = "results/e/{embedding}/{split}.h5", "results/{name}.csv", "results/{name}.json"
HERE = {
    "places": {
        TOKENS: {"embedding": "embedding", "split": "split"},
        TABLE: {"name": "name", "run": ""},
        RESULT: {"run": ""},
    },
    "levels": {"embedding": {"vits": "12"}, "run": {"": "34"}},
}
THERE = {**HERE, "levels": {"embedding": {"vits": "56"}, "run": {"": "78"}}}


@pytest.fixture(autouse=True)
def nothing_asked():
    yield
    ask({})


def test_what_is_asked_for_follows_from_the_place():
    ask(HERE)
    assert asked() == HERE
    assert made_for("/scratch/results/e/vits/train.h5") == {"embedding": "vits 12", "split": "train"}
    assert made_for("results/e/other/train.h5") == {"embedding": "other", "split": "train"}
    assert made_for("results/metrics.csv") == {"name": "metrics", "run": "34"}
    assert made_for("elsewhere/metrics.csv") == {}
    assert names_in(TOKENS, "results/e/a/b/c.h5") is None
    ask({})
    assert made_for("results/metrics.csv") == {}


def tokens(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with store.writing(path, "embeddings", {}) as file:
        file.create_dataset("tokens", data=np.ones((2, 1, 1, 3), np.float16))


WRITE = {
    "e/vits/train.h5": tokens,
    "metrics.csv": lambda path: write_table(path, "a\n1\n", "dinodp.store", {}),
    "a.json": lambda path: write_result(path, {"a": 1}, "dinodp.store", {}),
}
OTHER = {"e/vits/train.h5": "embedding", "metrics.csv": "run", "a.json": "run"}


def read(path):
    if path.suffix == ".h5":
        with store.reading(path, "embeddings"):
            return
    (read_table if path.suffix == ".csv" else read_result)(path)


@pytest.mark.parametrize("name", WRITE)
def test_files_of_another_configuration_are_refused(tmp_path, name):
    path = tmp_path / "results" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    ask(HERE)
    WRITE[name](path)
    read(path)
    ask(THERE)
    sentence = rf"{name} was made for another {OTHER[name]} than the configuration asks for here: .*run again"
    with pytest.raises(InputError, match=sentence):
        read(path)
    ask({})
    read(path)  # by hand, everything may be read


@pytest.mark.parametrize("name", WRITE)
def test_files_that_do_not_say_what_they_were_made_for_are_refused(tmp_path, name):
    path = tmp_path / "results" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    WRITE[name](path)
    ask(HERE)
    with pytest.raises(InputError, match=rf"{name} was made for another .*run"):
        read(path)


def test_the_embeddings_of_another_split_are_refused(tmp_path):
    """Both may have as many images."""
    ask(HERE)
    train, test = (tmp_path / f"results/e/vits/{split}.h5" for split in ("train", "test"))
    tokens(test)
    train.write_bytes(test.read_bytes())
    with pytest.raises(InputError, match=r"train\.h5 was made for another split than the configuration asks for"):
        read(train)


def test_outside_the_workflow_nothing_is_said(tmp_path):
    tokens(tmp_path / "results/e/vits/train.h5")
    with h5py.File(tmp_path / "results/e/vits/train.h5") as file:
        assert store.MADE_FOR not in file.attrs
