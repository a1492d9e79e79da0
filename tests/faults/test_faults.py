"""A run that is damaged, killed, out of space or started twice: the same bytes, or a sentence (``make faults``)."""

import random
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from damages import DAMAGES, Damaged
from matrix import (
    CHANGED,
    CONFIGURATION,
    KINDS,
    OTHER,
    Table,
    Trial,
    damages,
    differences,
    flips,
    full_disks,
    killed_jobs,
    killed_runs,
    tried,
    undone,
    unsound,
)
from replay import TIMED, Outcome, Run, start

long = pytest.mark.faults


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run.make(tmp_path_factory.mktemp("faults") / "run", CONFIGURATION)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return Run.make(tmp_path_factory.mktemp("faults") / "other", OTHER)


@long
def test_jobs_make_the_same_bytes_again(run):
    assert unsound(run) == []


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    return Run.make(tmp_path_factory.mktemp("faults") / "changed", CHANGED)


@long
@pytest.mark.parametrize("part", ["damages", "full disks", "flips", "killed jobs", "killed runs"])
def test_every_fault_is_refused_or_changes_nothing(run, other, changed, tmp_path, part):
    trials = {
        "damages": damages(run, other, whole=False),
        "full disks": full_disks(run),
        "flips": flips(run, count=25),
        "killed jobs": killed_jobs(run, changed, count=12),
        "killed runs": killed_runs(run, tmp_path, count=2),
    }
    table = tried(trials[part])
    print(table.markdown())
    assert table.total()
    assert table.wrong == []


@long
def test_two_runs_at_once_end_with_the_same_bytes_or_a_sentence(run, tmp_path):
    folder = tmp_path / "twice"
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("results", ".snakemake"))
    both = [start(folder, "--configfile", "config/run.yaml") for _ in range(2)]
    texts = [process.communicate(timeout=600)[0] for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes
    assert all(code == 0 or "Directory cannot be locked" in text for code, text in zip(codes, texts, strict=True))
    assert differences(Run(folder).results(), run.results()) == ""


# --- the harness itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damage_changes_the_file_and_is_undone(tmp_path, damage):
    path, twin = tmp_path / "file", tmp_path / "twin"
    path.write_bytes(bytes(range(1, 256)) * 9), twin.write_bytes(b"other")
    before = path.stat()
    with Damaged(path, DAMAGES[damage], twin, random.Random(0), keep_time=True):
        assert not path.exists() or path.read_bytes() != bytes(range(1, 256)) * 9
        assert not path.exists() or path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.read_bytes() == bytes(range(1, 256)) * 9
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_table_tells_what_is_wrong():
    table = Table()
    table.add("scores", "cut", "evaluate", Outcome("sentence", "It is cut."))
    table.add("scores", "cut", "evaluate", Outcome("WRONG", "x.json"))
    table.add("model", "deleted", "score", Outcome("same"))
    assert table.wrong == ["scores, cut, evaluate: WRONG x.json"]
    assert table.markdown().splitlines()[2:] == ["| scores | 1 WRONG, 1 sentence |  |", "| model |  | 1 same |"]
    assert table.total() == {"sentence": 1, "WRONG": 1, "same": 1}


def test_what_was_tried_is_not_tried_again(tmp_path):
    """Also where the long run was broken off; a trial draws the same whenever it is its turn."""
    drawn = []

    def attempt(draw):
        drawn.append(draw.random())
        return Outcome("same")

    trials = [Trial("model", "cut", "score", attempt) for _ in range(3)]
    tried(trials[:2], tmp_path / "notes.jsonl")
    whole = tried(trials, tmp_path / "notes.jsonl")
    assert whole.total() == {"same": 3}
    assert len(drawn) == 3
    tried(trials)
    assert sorted(drawn[3:]) == sorted(drawn[:3])


def test_no_trial_begins_after_its_time(tmp_path):
    trial = Trial("model", "cut", "score", lambda draw: Outcome("same"))
    assert tried([trial], tmp_path / "notes.jsonl", end=0).total() == {}


def test_what_is_missing_or_other_is_told():
    expected = {"a": b"1", "b": b"2", "c": b"3"}
    assert differences({"a": b"1", "b": b"0"}, expected) == "no c, b"
    assert differences(expected, expected) == ""


def test_a_job_is_undone_with_all_that_reads_what_it_made():
    made = {"embed": ("manifest", "embeddings"), "fit": ("embeddings", "model"), "score": ("model", "scores")}
    jobs = [SimpleNamespace(inputs=[file], noted=SimpleNamespace(output=[out])) for file, out in made.values()]
    assert undone(jobs, jobs[1:2]) == jobs[1:]
    assert undone(jobs, jobs[2:]) == jobs[2:]


@long
def test_every_kind_of_file_is_one_of_the_run_and_is_read(run):
    missing = [name for name in KINDS.values() if not (run.folder / "results" / name).is_file()]
    assert missing == []
    assert TIMED
