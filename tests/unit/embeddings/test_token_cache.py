import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import ROOT

from dinodp import store
from dinodp.embeddings import EmbeddingReader
from dinodp.embeddings import cache as token_cache
from dinodp.embeddings.cache import TokenRows
from dinodp.errors import InputError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "train.h5"
    write(path, np.random.default_rng(0).normal(size=(9, 4, 5, 6)))
    return path


def write(path, tokens):
    with store.writing(path, "embeddings", {}) as file:
        file.create_dataset("tokens", data=tokens.astype(np.float16), chunks=(1, 4, 5, 6))


@pytest.mark.parametrize("cache", ["none", "memory", "{folder}/scratch"])
def test_a_cache_changes_no_embedding(path, tmp_path, cache):
    plain = EmbeddingReader(path, rows=[1, 4, 8], grid=None).read([2, 0])
    cached = EmbeddingReader(path, rows=[1, 4, 8], grid=None, cache=cache.format(folder=tmp_path))
    assert (cached.read([2, 0]) == plain).all()
    assert (cached.read([2, 0]) == plain).all()


def test_memory_reads_the_file_once(path):
    rows = TokenRows(path, range(9), "memory")
    first = rows.read([3])
    rows._file.close()
    assert (rows.read([3]) == first).all()


def test_a_copy_is_made_once_and_anew_when_the_file_changes(path, tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    for _ in range(2):
        TokenRows(path, range(9), "$SCRATCH").read([0])
    (copy,) = (tmp_path / "scratch").glob("*.h5")
    with h5py.File(copy) as file, h5py.File(path) as source:
        assert (file["tokens"][()] == source["tokens"][()]).all()
    write(path, np.ones((9, 4, 5, 6)))
    assert (TokenRows(path, range(9), "$SCRATCH").read([0]) == 1).all()
    assert len(list((tmp_path / "scratch").glob("*.h5"))) == 1  # the outdated copy is gone


def test_without_space_the_file_itself_is_read(path, tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    assert TokenRows(path, range(9), str(tmp_path / "scratch")).read([0]).shape == (1, 4, 5, 6)
    assert not list((tmp_path / "scratch").glob("*.h5"))


def test_a_copy_that_fails_is_done_without(path, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", failing)
    assert TokenRows(path, range(9), str(tmp_path / "scratch")).read([0]).shape == (1, 4, 5, 6)
    assert not [item for item in (tmp_path / "scratch").iterdir() if item.suffix != ".lock"]


def test_a_folder_whose_locks_cannot_be_had_is_done_without(path, tmp_path):
    name = token_cache._digest(str(path.resolve()))
    (tmp_path / f"scratch/dinodp-{name}.lock").mkdir(parents=True)
    assert token_cache.local_copy(path, str(tmp_path / "scratch")) == path


def test_what_a_killed_copy_left_is_removed(path, tmp_path):
    copy = token_cache.local_copy(path, str(tmp_path / "scratch"))
    left = copy.with_name("part." + copy.name.rsplit("-", 1)[0] + "-0.h5")
    left.touch()
    copy.unlink()
    assert token_cache.local_copy(path, str(tmp_path / "scratch")) == copy
    assert not left.exists()


def test_jobs_at_once_make_one_copy(path, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
        "from pathlib import Path\nfrom dinodp.embeddings import cache\n"
        f"cache.logger.info = print\ncache.local_copy(Path({str(path)!r}), {str(tmp_path / 'scratch')!r})"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [job.communicate(timeout=60)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0, 0]
    assert sum("Copied" in text for text in said) == 1


def test_what_cannot_be_a_folder_is_said(path):
    with pytest.raises(InputError, match=r"names an environment variable that is not set"):
        TokenRows(path, range(9), "$NOT_SET_ANYWHERE/x").read([0])
    with pytest.raises(InputError, match="cannot be made"):
        TokenRows(path, range(9), str(path / "below_a_file")).read([0])
