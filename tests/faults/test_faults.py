"""A run that is damaged, killed, out of space or started twice: the same bytes, or a sentence (``make faults``)."""

import random
import shutil
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from damages import DAMAGES, Damaged
from matrix import CONFIGURATION, KINDS, OTHER, Table, damage_files, fill_disk, flip_bits, unsound
from replay import TIMED, Outcome, Run, kill_after, start

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


@long
def test_damaged_files_are_refused_or_change_nothing(run, other):
    table = damage_files(run, other, whole=False)
    print(table.markdown())
    assert table.wrong == []


@long
def test_a_full_disk_is_told_and_leaves_nothing(run):
    table = fill_disk(run)
    print(table.markdown())
    assert table.wrong == []


@long
def test_flipped_bits_are_refused_or_change_nothing(run, other):
    assert flip_bits(run, other, count=25).wrong == []


def killed_and_finished(run, folder, first, seconds):
    """Begin a run with the configuration ``first``, kill it, go on with that of ``run``; its results."""
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("results", ".snakemake"))
    (folder / "config/first.yaml").write_text(yaml.safe_dump(first))
    kill_after(start(folder, "--configfile", "config/first.yaml"), seconds)
    arguments = ["--configfile", "config/run.yaml"]
    unlock = start(folder, "--unlock", *arguments)
    unlock.communicate()
    again = start(folder, *arguments)
    text, _ = again.communicate(timeout=600)
    assert again.returncode == 0, text[-3000:]
    return Run(folder).results()


def differing(found, expected):
    """Paths of files that are not as in an uninterrupted run."""
    return [path for path, data in expected.items() if found.get(path) != data]


CHANGED = {**CONFIGURATION, "models": {"dpmm_demo": {"components": 20, "epochs": 60, "step_rate": 0.9}}}


@long
@pytest.mark.parametrize("first", [CONFIGURATION, CHANGED], ids=["same", "changed"])
def test_a_killed_run_that_goes_on_ends_with_the_same_bytes(run, tmp_path, first):
    seconds = random.Random(str(first)).uniform(5, 30)
    found = killed_and_finished(run, tmp_path / "killed", first, seconds)
    assert differing(found, run.results()) == []


@long
def test_two_runs_at_once_end_with_the_same_bytes_or_a_sentence(run, tmp_path):
    folder = tmp_path / "twice"
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("results", ".snakemake"))
    both = [start(folder, "--configfile", "config/run.yaml") for _ in range(2)]
    texts = [process.communicate(timeout=600)[0] for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes
    assert all(code == 0 or "Directory cannot be locked" in text for code, text in zip(codes, texts, strict=True))
    assert differing(Run(folder).results(), run.results()) == []


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


@long
def test_every_kind_of_file_is_one_of_the_run_and_is_read(run):
    missing = [name for name in KINDS.values() if not (run.folder / "results" / name).is_file()]
    assert missing == []
    assert TIMED
