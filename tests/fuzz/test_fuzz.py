"""A few of the inputs of ``make fuzz`` in every run of the tests, and each finding of longer runs again."""

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fuzz import FINDINGS, fuzz
from mutator import BINARY, TEXT, mutated, with_checksums
from readers import TARGETS
from sandbox import Outcome, outcomes

FOUND = sorted(FINDINGS.glob("*")) if FINDINGS.is_dir() else []


@pytest.mark.parametrize("name", list(TARGETS))
def test_a_damaged_file_is_read_or_refused_in_a_sentence(name):
    found, wrong = fuzz(TARGETS[name], seed=1, count=150, seconds=10)
    assert not wrong
    assert found["value"] >= 1  # the true files
    assert found["sentence"] >= 1


@pytest.mark.parametrize("file", FOUND, ids=lambda path: path.name)
def test_a_finding_stays_fixed(file, tmp_path):
    target = TARGETS[file.name.rsplit("-", 2)[0]]
    data = file.read_bytes()

    def write(number):
        path = tmp_path / "in" / target.name
        path.parent.mkdir(exist_ok=True)
        if target.place is not None:
            return target.place(path.parent, path, data)
        path.write_bytes(data)
        return path

    (outcome,) = outcomes(target.read, write, 1)
    assert outcome.is_right, outcome


def test_the_inputs_are_the_same_in_every_run(tmp_path):
    target = TARGETS["image.bmp"]
    one, two = (target.inputs(tmp_path, seed=3) for _ in range(2))
    first = [one(number).read_bytes() for number in range(20)]
    assert first == [two(number).read_bytes() for number in range(20)]
    assert len(set(first)) > 10


def test_a_mended_png_is_the_same_png(tmp_path):
    for seed in TARGETS["image.png"].seeds(tmp_path):
        assert with_checksums(seed) == seed


def test_every_damage_gives_bytes():
    import random

    for damages in (BINARY, TEXT):
        assert all(isinstance(mutated([b"a,b\n1,2\n"], random.Random(n), damages), bytes) for n in range(200))


def hang(path):
    while path.name == "1":
        pass


def wait(path):
    if path.name == "1":
        time.sleep(600)


def fill(path):
    return b"x" * 2**27 if path.name == "1" else None


def crash(path):
    import os

    if path.name == "1":
        os._exit(3)


@pytest.mark.parametrize(("reader", "kind"), [(hang, "hang"), (wait, "hang"), (fill, "memory"), (crash, "crash")])
def test_the_sandbox_ends_what_does_not_end_and_goes_on(reader, kind, monkeypatch):
    monkeypatch.setattr("sandbox.SECONDS", 1.0)
    monkeypatch.setattr("sandbox.PATIENCE", 1.0 if reader is wait else 120.0)
    monkeypatch.setattr("sandbox.MEMORY", 2**26)
    found = [outcome.kind for outcome in outcomes(reader, lambda number: Path(str(number)), 3)]
    assert found == ["value", kind, "value"]


def test_a_sentence_is_told_from_a_traceback():
    from sandbox import _judged

    from dinodp.errors import InputError

    assert _judged(InputError("One.")).is_right
    assert not _judged(InputError("Two\nlines.")).is_right
    assert not Outcome("traceback").is_right
