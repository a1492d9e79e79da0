"""Embeddings that were damaged, exchanged or left behind: found, said, or made anew to the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from made_files import flip
from PIL import Image

from dinodp import store
from dinodp.configuration.asked import PLACES
from dinodp.embeddings import EmbeddingReader, embed_split
from dinodp.embeddings.cache import TokenRows, local_copy
from dinodp.embeddings.shards import Shard, gather_embeddings
from dinodp.errors import InputError
from dinodp.jobs.asked import ask
from dinodp.jobs.logs import logger
from dinodp.jobs.origin import sha256
from dinodp.options import places

N_IMAGES = 16


class MeanColour:
    """Mean colours of 8 x 8 patches; may be interrupted or slow."""

    name, device = "mean_colour", torch.device("cpu")

    def __init__(self, calls=None, seconds=0.0, patch=8):
        self.calls, self.seconds, self.patch = calls, seconds, patch

    def provenance(self):
        return {"backbone": self.name}

    def prepare(self, image):
        return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255

    def embed(self, pixels):
        time.sleep(self.seconds)
        if self.calls is not None:
            self.calls -= 1
            if self.calls < 0:
                raise KeyboardInterrupt
        return torch.nn.functional.avg_pool2d(pixels, self.patch).permute(0, 2, 3, 1)


def images(folder):
    generator, rows = np.random.default_rng(0), []
    folder.mkdir(exist_ok=True)
    for index in range(N_IMAGES):
        path = folder / f"{index}.png"
        Image.fromarray(generator.integers(0, 255, (32, 24, 3), dtype=np.uint8)).save(path)
        rows.append({"image": str(path), "image_sha256": sha256(path.read_bytes())})
    return pd.DataFrame(rows)


@pytest.fixture
def frame(tmp_path):
    return images(tmp_path / "images")


@pytest.fixture
def whole(frame, tmp_path):
    embed_split(frame, MeanColour(), tmp_path / "whole.h5", {"a": 1}, batch_size=2)
    return tmp_path / "whole.h5"


def test_a_changed_or_deleted_image_is_not_embedded(frame, tmp_path):
    Image.new("RGB", (24, 32)).save(frame["image"][3])
    with pytest.raises(InputError, match=r"3\.png was changed after the manifest was made"):
        embed_split(frame, MeanColour(), tmp_path / "x.h5", {}, batch_size=2)
    Path(frame["image"][3]).unlink()
    with pytest.raises(InputError, match=r"3\.png cannot be read .*but the manifest names it"):
        embed_split(frame, MeanColour(), tmp_path / "x.h5", {}, batch_size=2)


def image_place(path, row):
    head = store.Head.read(path)
    return head.start + row * ((head.stop - head.start) // N_IMAGES)


def test_a_damaged_image_is_found_when_it_is_read(whole):
    flip(whole, image_place(whole, 5) + 3)
    reader = EmbeddingReader(whole, grid=None)
    assert reader.read([4, 6]).shape[0] == 2
    with pytest.raises(InputError, match=r"embeddings of image 5 in .*whole\.h5 are not as they were written"):
        reader.read([4, 5])


def test_zeroed_and_exchanged_images_are_found(whole):
    content = bytearray(whole.read_bytes())
    one, two, size = image_place(whole, 1), image_place(whole, 2), image_place(whole, 1) - image_place(whole, 0)
    content[one : one + size], content[two : two + size] = content[two : two + size], content[one : one + size]
    whole.write_bytes(content)
    for row in (1, 2):
        with pytest.raises(InputError, match=f"embeddings of image {row} in "):
            EmbeddingReader(whole, grid=None).read([row])


def test_more_images_than_are_there_are_not_read(whole):
    with pytest.raises(InputError, match=r"whole\.h5 holds 16 images, but image 16 is asked for"):
        EmbeddingReader(whole, rows=[16])


def test_a_damaged_copy_is_dropped_and_the_file_read(whole, tmp_path):
    expected = TokenRows(whole, range(N_IMAGES)).read(range(N_IMAGES))
    for damage in (lambda path: flip(path, -100), lambda path: path.write_bytes(path.read_bytes()[:700])):
        copy = local_copy(whole, str(tmp_path / "scratch"))
        damage(copy)
        rows = TokenRows(whole, range(N_IMAGES), str(tmp_path / "scratch"))
        np.testing.assert_array_equal(rows.read(range(N_IMAGES)), expected)
        assert not copy.exists()


def test_a_copy_is_of_the_content_and_not_of_the_time(frame, whole, tmp_path):
    copy, made = local_copy(whole, str(tmp_path / "scratch")), whole.stat()
    embed_split(frame[::-1], MeanColour(), whole, {"a": 1}, batch_size=2)
    os.utime(whole, ns=(made.st_atime_ns, made.st_mtime_ns))
    assert local_copy(whole, str(tmp_path / "scratch")) != copy
    read = TokenRows(whole, range(N_IMAGES), str(tmp_path / "scratch")).read([0])
    np.testing.assert_array_equal(read, TokenRows(whole, range(N_IMAGES)).read([0]))


def shards(frame, folder, config):
    parts = [folder / f"test/shard-{index}-of-2.h5" for index in range(2)]
    for index, part in enumerate(parts):
        embed_split(frame, MeanColour(), part, config, shard=Shard(index, 2), batch_size=2)
    return parts


def test_an_exchanged_shard_is_found(frame, tmp_path):
    parts = shards(frame, tmp_path, {"a": 1})
    gather_embeddings(parts, tmp_path / "test.h5")
    other = shards(frame[::-1].reset_index(drop=True), tmp_path / "other", {"a": 1})
    shutil.copy(other[1], parts[1])
    reader = EmbeddingReader(tmp_path / "test.h5", grid=None)
    assert len(reader.read([7])) == 1
    with pytest.raises(InputError, match=r"embeddings of image 8 in .*are not as they were written"):
        reader.read([8])


def test_a_shard_whose_structure_is_damaged_is_not_opened(frame, tmp_path):
    """HDF5, which may not end on damage, would open it by itself."""
    parts = shards(frame, tmp_path, {"a": 1})
    gather_embeddings(parts, tmp_path / "test.h5")
    flip(parts[1], store.HEAD_BYTES + 100)
    with pytest.raises(InputError, match=r"shard-1-of-2\.h5 is not as it was written"):
        EmbeddingReader(tmp_path / "test.h5", grid=None)


def test_a_copy_whose_structure_is_damaged_is_not_opened(whole, tmp_path, monkeypatch):
    copy = local_copy(whole, str(tmp_path / "scratch"))
    flip(copy, store.HEAD_BYTES + 100)
    opened, really = [], h5py.File
    monkeypatch.setattr("dinodp.embeddings.cache.h5py.File", lambda path, *_: opened.append(path) or really(path))
    assert len(TokenRows(whole, range(N_IMAGES), str(tmp_path / "scratch")).read([0])) == 1
    assert set(opened) == {whole}


@pytest.mark.parametrize("size", [0, 100, 70_000])
def test_a_full_disk_is_one_sentence_and_leaves_nothing_under_the_name(frame, tmp_path, size):
    """A limit on the size of files in the place of the disk; 70,000 bytes are less than the images take."""
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'scripts')!r}, {str(ROOT / 'tests')!r}]\n"
        "import importlib.util, pathlib, resource, signal\n"
        f"spec = importlib.util.spec_from_file_location('made', {__file__!r})\n"
        "made = importlib.util.module_from_spec(spec); spec.loader.exec_module(made)\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\nframe = made.images(folder / 'images')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
        "try:\n    made.embed_split(frame, made.MeanColour(patch=1), folder / 'x.h5', {'a': 1}, batch_size=2)\n"
        "except made.InputError as error:\n    print('SAID', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "x.h5" in done.stdout
    assert "MiB are free on its file system; free some space and run again." in done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.h5").exists()


def test_embeddings_that_have_no_room_are_refused_before_they_are_computed_further(frame, tmp_path, monkeypatch):
    monkeypatch.setattr("dinodp.errors.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 65_600))
    with pytest.raises(InputError, match=r"x\.h5\.partial cannot be written: it takes 0\.1 MiB; 0\.1 MiB are free"):
        embed_split(frame, MeanColour(), tmp_path / "x.h5", {"a": 1}, batch_size=2)


def test_shards_of_two_runs_are_not_gathered(frame, tmp_path):
    parts = shards(frame, tmp_path, {"a": 1})
    shutil.copy(shards(frame, tmp_path / "other", {"a": 2})[1], parts[1])
    with pytest.raises(InputError, match=r"shard-1-of-2\.h5 was made from other data, options or code than .*shard-0"):
        gather_embeddings(parts, tmp_path / "test.h5")


def test_gathered_embeddings_have_the_digest_of_one_file(frame, whole, tmp_path):
    gather_embeddings(shards(frame, tmp_path, {"a": 1}), tmp_path / "test.h5")
    assert store.digest_of(tmp_path / "test.h5") == store.digest_of(whole)


@pytest.fixture
def asking():
    """What the workflow tells its jobs: each file says what it was made for, a shard also which one it is."""
    ask({"places": PLACES, "levels": {"dataset": {"d": "1"}, "embedding": {"e": "2"}}})
    yield
    ask({})


def test_gathered_shards_say_what_one_file_says_and_an_exchanged_one_is_refused(frame, tmp_path, asking):
    at = {"dataset": "d", "embedding": "e", "split": "test"}
    path, one = (tmp_path / name / places.fill(places.TOKENS, **at) for name in ("many", "one"))
    embed_split(frame, MeanColour(), one, {"a": 1}, batch_size=2)
    parts = [tmp_path / "many" / places.fill(places.TOKENS_SHARD, shard=index, shards=2, **at) for index in range(2)]
    for index, part in enumerate(parts):
        embed_split(frame, MeanColour(), part, {"a": 1}, shard=Shard(index, 2), batch_size=2)
    gather_embeddings(parts, path)
    assert store.digest_of(path) == store.digest_of(one)
    with store.reading(path, "embeddings") as file:
        assert store.made_for_of(file) == {"dataset": "d 1", "embedding": "e 2", "split": "test"}
    shutil.copy(parts[0], parts[1])
    with pytest.raises(InputError, match=r"shard-1-of-2\.h5 was made for another shard than the configuration asks"):
        gather_embeddings(parts, path)


def interrupted(frame, path):
    with pytest.raises(KeyboardInterrupt):
        embed_split(frame, MeanColour(4), path, {"a": 1}, batch_size=2)
    return path.with_name(path.name + ".partial"), path.with_name(path.name + ".partial.json")


DAMAGES = {
    "empty partial": lambda partial, noted: partial.write_bytes(b""),
    "no partial": lambda partial, noted: partial.unlink(),
    "cut partial": lambda partial, noted: partial.write_bytes(partial.read_bytes()[:900]),
    "zeroed partial": lambda partial, noted: partial.write_bytes(bytes(partial.stat().st_size)),
    "flipped image": lambda partial, noted: flip(partial, int(noted.read_text().split()[2]) + 1),
    "flipped structure": lambda partial, noted: flip(partial, 700),
    "emptied note": lambda partial, noted: noted.write_text(""),
    "no text": lambda partial, noted: noted.write_bytes(b"\xff\xfe"),
    "another digest": lambda partial, noted: flip(noted, -5),
    "a digest too many": lambda partial, noted: noted.write_text(noted.read_text() + 64 * "0" + "\n"),
    "no note": lambda partial, noted: noted.unlink(),
    "a folder": lambda partial, noted: (partial.unlink(), partial.mkdir()),
    "a note of another version": lambda partial, noted: noted.write_text('{"key": "x", "done": 16}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_an_interruption_left_is_used_only_where_it_is_whole(frame, whole, tmp_path, damage, caplog):
    caplog.set_level("INFO")
    partial, noted = interrupted(frame, tmp_path / "x.h5")
    DAMAGES[damage](partial, noted)
    done = embed_split(frame, MeanColour(), tmp_path / "x.h5", {"a": 1}, batch_size=2)["images"]
    assert done == N_IMAGES
    assert (tmp_path / "x.h5").read_bytes() == whole.read_bytes()
    assert not partial.exists()
    assert ("Start anew: x.h5.partial is damaged" in caplog.text) == (damage != "no partial")
    assert not noted.exists()


def test_a_torn_last_line_costs_one_image_only(frame, whole, tmp_path):
    _, noted = interrupted(frame, tmp_path / "x.h5")
    noted.write_text(noted.read_text()[:-9])
    assert embed_split(frame, MeanColour(), tmp_path / "x.h5", {"a": 1}, batch_size=2)["images"] == N_IMAGES - 7
    assert (tmp_path / "x.h5").read_bytes() == whole.read_bytes()


def test_a_planted_link_at_the_partial_is_not_followed(frame, whole, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for end in (".partial", ".partial.json"):
        (tmp_path / f"x.h5{end}").symlink_to(precious)
    embed_split(frame, MeanColour(), tmp_path / "x.h5", {"a": 1}, batch_size=2)
    assert precious.read_text() == "mine"
    assert (tmp_path / "x.h5").read_bytes() == whole.read_bytes()


def test_a_killed_job_goes_on_to_the_same_bytes(frame, whole, tmp_path, monkeypatch):
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'scripts')!r}, {str(ROOT / 'tests')!r}]\n"
        "import importlib.util, pathlib\n"
        f"spec = importlib.util.spec_from_file_location('made', {__file__!r})\n"
        "made = importlib.util.module_from_spec(spec); spec.loader.exec_module(made)\n"
        "from dinodp.embeddings import writer\nwriter.SECONDS_BETWEEN_NOTES = 0\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\nframe = made.images(folder / 'images')\n"
        "made.embed_split(frame, made.MeanColour(seconds=0.3), folder / 'x.h5', {'a': 1}, batch_size=2)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    noted, deadline = tmp_path / "x.h5.partial.json", time.monotonic() + 60
    while not (noted.exists() and noted.read_text().count("\n") > 4):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    said = []
    monkeypatch.setattr(logger, "info", lambda text, *values: said.append(text % values))
    done = embed_split(frame, MeanColour(), tmp_path / "x.h5", {"a": 1}, batch_size=2)["images"]
    assert 0 < done < N_IMAGES
    assert any(text.startswith("Resume x.h5.partial after") for text in said)
    assert (tmp_path / "x.h5").read_bytes() == whole.read_bytes()
