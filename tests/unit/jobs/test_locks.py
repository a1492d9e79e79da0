"""One writer at a time, in real processes."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from dinodp.errors import InputError
from dinodp.jobs.locks import exclusive

HOLD = """
import sys, time
from pathlib import Path
from dinodp.jobs.locks import exclusive
with exclusive(Path(sys.argv[1]), Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""
COUNT = """
import sys, time
from pathlib import Path
from dinodp.jobs.locks import exclusive
from dinodp.errors import InputError
count = Path(sys.argv[2])
done = 0
while done < 30:
    try:
        with exclusive(Path(sys.argv[1]), count):
            value = int(count.read_text())
            time.sleep(0.0005)
            count.write_text(str(value + 1))
            done += 1
    except InputError:
        time.sleep(0.001)
"""


@pytest.fixture
def held(tmp_path):
    """A lock that another process holds."""
    lock = tmp_path / ".m.h5.lock"
    process = subprocess.Popen([sys.executable, "-c", HOLD, lock, tmp_path / "m.h5"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process, lock
    process.kill()
    process.wait()


def test_the_others_say_so_and_a_dead_process_does_not_block(held, tmp_path):
    process, lock = held
    with pytest.raises(InputError, match=rf"m\.h5 is being written by another process \({process.pid}\): wait"):
        exclusive(lock, tmp_path / "m.h5").__enter__()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert lock.exists()
    with exclusive(lock, tmp_path / "m.h5"):
        assert lock.read_text() == str(os.getpid())  # and nothing of the process before
    assert not lock.exists()


def test_no_two_hold_it(tmp_path):
    count = tmp_path / "count"
    count.write_text("0")
    command = [sys.executable, "-c", COUNT, tmp_path / ".lock", count]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    assert count.read_text() == "120"


def test_a_planted_link_is_not_followed(tmp_path):
    victim, lock = tmp_path / "victim", tmp_path / "out/.lock"
    victim.write_text("precious")
    lock.parent.mkdir()
    lock.symlink_to(victim)
    with pytest.raises(InputError, match=r"Nothing can be written into .*/out \(.*\.lock: Too many levels of symbolic"):
        exclusive(lock, tmp_path / "out").__enter__()
    assert victim.read_text() == "precious"


def test_a_folder_that_stays_empty_goes_again(tmp_path):
    with pytest.raises(KeyError), exclusive(tmp_path / "new/.lock", tmp_path / "new"):
        raise KeyError
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    start = time.monotonic()
    with exclusive(tmp_path / "mine/.lock", tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()
    assert time.monotonic() - start < 1


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, caplog):
    """As some network file systems are."""
    monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks available")))
    with exclusive(tmp_path / "lock", tmp_path / "m.h5"):
        assert f"The file system of {tmp_path / 'm.h5'} has no locks: let one process at a time" in caplog.text


def test_what_else_the_system_refuses_of_a_lock_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(InputError, match="Input/output error"), exclusive(tmp_path / "lock", tmp_path / "m.h5"):
        pass
