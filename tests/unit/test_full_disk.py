import errno
import os

import pytest

from dinodp.errors import InputError, full_disk_told, reason_of, require_space
from dinodp.jobs.files import replaced_file, replaced_folder, write_text

FULL = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError("Can't write data (file write failed: errno = 28, error message = 'No space left on device')"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 0"),
]


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_full_disk_is_told(tmp_path, error):
    sentence = r"x.h5 cannot be written: the disk or the quota is full; [\d.]+ MiB are free on its file system"
    with pytest.raises(InputError, match=sentence), full_disk_told(tmp_path / "x.h5"):
        raise error
    for replaced in (replaced_file, replaced_folder):
        with pytest.raises(InputError, match="the disk or the quota is full"), replaced(tmp_path / "x"):
            raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "No"), RuntimeError("errno = 2"), ValueError("x"), KeyError()])
def test_other_errors_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error)) as raised, full_disk_told(tmp_path / "x.h5"):
        raise error
    assert raised.value is error


def test_a_full_disk_is_told_by_what_was_raised_from_it(tmp_path):
    error = RuntimeError("x")
    error.__cause__ = FULL[2]
    with pytest.raises(InputError, match="is full"), full_disk_told(tmp_path / "x.h5"):
        raise error


@pytest.mark.parametrize("error", FULL, ids=str)
def test_the_reason_says_what_is_free(tmp_path, error):
    assert reason_of(error, tmp_path / "x.h5").endswith("MiB are free on its file system")


def test_what_has_no_room_is_refused_before_it_is_written(tmp_path):
    require_space(tmp_path / "a/x.h5", 10)
    with pytest.raises(InputError, match=r"x\.h5 cannot be written: it takes 1073741824\.0 MiB; [\d.]+ MiB are free"):
        require_space(tmp_path / "a/x.h5", 2**50)


def test_what_was_written_before_stays(tmp_path):
    write_text(tmp_path / "x", "before")
    with pytest.raises(InputError), replaced_file(tmp_path / "x"):
        raise FULL[0]
    assert (tmp_path / "x").read_text() == "before"
