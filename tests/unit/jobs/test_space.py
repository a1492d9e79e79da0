import errno
import os

import pytest

from dinodp.errors import InputError
from dinodp.jobs.files import replaced_file, replaced_folder, write_text
from dinodp.jobs.space import full_disk_told

FULL = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError("Can't write data (file write failed: errno = 28, error message = 'No space left on device')"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 0"),
]


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_full_disk_is_told(tmp_path, error):
    sentence = r"x.h5 cannot be written: the disk or the quota is full \(\d+ MiB are free"
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


def test_what_was_written_before_stays(tmp_path):
    write_text(tmp_path / "x", "before")
    with pytest.raises(InputError), replaced_file(tmp_path / "x"):
        raise FULL[0]
    assert (tmp_path / "x").read_text() == "before"
