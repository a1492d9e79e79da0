"""Files that are complete or absent, under names that nobody can lie in wait at."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dinodp.errors import InputError
from dinodp.jobs import files
from dinodp.jobs.files import read_json, replaced_file, replaced_folder, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path):
    write_text(tmp_path / "a.txt", "first")
    with pytest.raises(ZeroDivisionError), replaced_file(tmp_path / "a.txt") as temporary:
        temporary.write_text(str(1 / 0))
    assert (tmp_path / "a.txt").read_text() == "first"
    assert names(tmp_path) == ["a.txt"]


def test_no_planted_link_is_followed(tmp_path, monkeypatch):
    """Neither at the former fixed name nor at one that was guessed."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "part.a.txt").symlink_to(precious)
    write_text(tmp_path / "a.txt", "result")
    monkeypatch.setattr(files, "_own_name", lambda path: path.with_name("part.guessed." + path.name))
    (tmp_path / "part.guessed.b.txt").symlink_to(precious)
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "b.txt", "result")
    assert precious.read_text() == "mine"
    assert (tmp_path / "a.txt").read_text() == "result"


def test_a_link_at_the_name_itself_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a.txt").symlink_to(tmp_path / "precious")
    write_text(tmp_path / "a.txt", "result")
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "a.txt").is_symlink()


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def test_what_ended_processes_left_is_cleared_and_nothing_else(tmp_path):
    machine = files._machine()
    dead = tmp_path / f"part.{machine}-{dead_process()}-00000000.a.txt"
    living = tmp_path / f"part.{machine}-{os.getppid()}-00000000.a.txt"
    elsewhere = tmp_path / f"part.ffffffff-{dead_process()}-00000000.a.txt"
    old = tmp_path / f"part.fffffffe-{dead_process()}-00000000.a.txt"
    other = tmp_path / f"part.{machine}-{dead_process()}-00000000.b.txt"
    own = tmp_path / "part.of.my.notes.a.txt"
    for path in (dead, living, elsewhere, old, other, own):
        path.write_text("left")
    os.utime(old, (0, 0))
    write_text(tmp_path / "a.txt", "result")
    assert names(tmp_path) == sorted(["a.txt", living.name, elsewhere.name, other.name, own.name])


def test_a_folder_is_replaced_whole_and_left_overs_go(tmp_path):
    left = tmp_path / f"part.{files._machine()}-{dead_process()}-00000000.slices"
    left.mkdir()
    (left / "0.png").touch()
    for content in ("first", "second"):
        with replaced_folder(tmp_path / "slices") as folder:
            (folder / "0.txt").write_text(content)
    with pytest.raises(ZeroDivisionError), replaced_folder(tmp_path / "slices"):
        raise ZeroDivisionError
    assert (tmp_path / "slices/0.txt").read_text() == "second"
    assert names(tmp_path) == ["slices"]


def test_a_long_name_has_room_for_the_temporary_one(tmp_path):
    path = tmp_path / ("x" * 250 + ".txt")
    write_text(path, "result")
    assert path.read_text() == "result"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not valid JSON"),
        (b'{"a": 1', "is not valid JSON"),
        (b"\xff\xfe{}", "is not valid JSON"),
        (b"[1]", "holds no object"),
        (b"[" * 100_000, "is not valid JSON"),
    ],
)
def test_json_that_is_none_is_said(tmp_path, content, said):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.json {said}" if "holds" not in said else said):
        read_json(tmp_path / "a.json")


def test_a_path_is_as_a_shell_would_have_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.user_path("~/maps") == tmp_path / "maps"
    assert files.user_path("maps") == Path("maps")
    assert files.user_path("~there-is-no-such-user/maps") == Path("~there-is-no-such-user/maps")
