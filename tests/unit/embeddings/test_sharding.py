import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dinodp import store
from dinodp.embeddings import EmbeddingReader, embed_split
from dinodp.embeddings.shards import Shard, gather_embeddings, gather_scores
from dinodp.errors import InputError
from dinodp.families.base import IMAGES_PER_SHARD
from dinodp.families.memory_bank import Bank
from dinodp.families.stages import score_split
from dinodp.jobs.costs import gather_costs, write_cost
from dinodp.jobs.origin import read_result, sha256
from dinodp.models import MemoryBank


class MeanColour:
    """A backbone whose embedding is the mean colour of each 8-pixel patch and the share of the batch's brightness.

    The latter depends on the whole batch, as rounding in a matrix product may.
    """

    name = "mean_colour"

    def provenance(self):
        return {"backbone": self.name}

    def prepare(self, image):
        return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255

    def embed(self, pixels):
        means = torch.nn.functional.avg_pool2d(pixels, 8).permute(0, 2, 3, 1)
        return torch.cat([means, means[..., :1] / pixels.sum()], dim=-1)


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    folder, generator, rows = tmp_path_factory.mktemp("images"), np.random.default_rng(0), []
    for index in range(150):
        path = folder / f"{index}.png"
        Image.fromarray(generator.integers(0, 255, (32, 24, 3), dtype=np.uint8)).save(path)
        rows.append({"image": str(path), "image_sha256": sha256(path.read_bytes()), "mask": "", "label": "normal"})
    return pd.DataFrame(rows)


def embed(frame, folder, count):
    """The gathered embeddings of ``count`` shards in ``folder``, made as the rules make them."""
    folder.mkdir(exist_ok=True)
    path = folder / "test.h5"
    if count == 1:
        embed_split(frame, MeanColour(), path, {"a": 1})
        return path
    parts = [folder / f"test/shard-{index}-of-{count}.h5" for index in range(count)]
    for index, part in enumerate(parts):
        embed_split(frame, MeanColour(), part, {"a": 1}, shard=Shard(index, count))
    gather_embeddings(parts, path)
    return path


def score(frame, tokens, folder, count):
    path = folder / "scores.h5"
    bank = MemoryBank().fit(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)))
    parts = [folder / f"scores-{index}.h5" for index in range(count)]
    for index, part in enumerate(parts):
        images = Shard(index, count).images(len(frame), IMAGES_PER_SHARD)
        source = EmbeddingReader(tokens, grid=(6, 5), rows=images)
        target = part if count > 1 else path
        score_split(Bank(bank, ["cosine"], 8), source, frame[images.start : images.stop], target)
    if count > 1:
        gather_scores(parts, path, len(frame))
    return path


@pytest.mark.parametrize("n_images", [0, 1, 7, 8, 9, 64, 100])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_are_whole_batches_that_cover_all_images_once(n_images, count):
    ranges = [Shard(index, count).images(n_images, 8) for index in range(count)]
    assert [image for images in ranges for image in images] == list(range(n_images))
    assert all(images.start % 8 == 0 for images in ranges if images)
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 8 + (n_images % 8 > 0) * 8


def test_any_number_of_shards_gives_the_same_embeddings_and_the_same_bytes_of_scores(frame, tmp_path):
    paths = {count: embed(frame, tmp_path / str(count), count) for count in (1, 2, 5)}
    tokens = {count: h5py.File(path)["tokens"][()].tobytes() for count, path in paths.items()}
    shown = [h5py.File(path)["foreground"][()] for path in paths.values()]
    scores = {count: score(frame, path, tmp_path / str(count), count).read_bytes() for count, path in paths.items()}
    assert tokens[1] == tokens[2] == tokens[5]
    assert shown[0].dtype == bool
    assert all(np.array_equal(shown[0], other) for other in shown)
    assert scores[1] == scores[2] == scores[5]


def test_shards_that_do_not_make_the_split_are_refused(frame, tmp_path):
    path = embed(frame, tmp_path / "a", 1)
    scores = score(frame, path, tmp_path / "a", 1)
    with pytest.raises(InputError, match=r"hold 300 images, but the split has 150"):
        gather_scores([scores, scores], tmp_path / "all.h5", len(frame))
    assert not (tmp_path / "all.h5").exists()


def test_embeddings_are_not_copied_and_the_files_move_together(frame, tmp_path):
    path = embed(frame, tmp_path / "a", 2)
    again = path.read_bytes()
    with h5py.File(path) as file:
        assert file["tokens"].is_virtual
        assert file.attrs["backbone"] == "mean_colour"
        assert store.config_of(file) == {"a": 1}
        expected = file["tokens"][()]
    gather_embeddings([tmp_path / f"a/test/shard-{index}-of-2.h5" for index in range(2)], path)
    assert path.read_bytes() == again
    shutil.move(tmp_path / "a", tmp_path / "elsewhere")
    with store.reading(tmp_path / "elsewhere/test.h5", "embeddings") as file:
        np.testing.assert_array_equal(file["tokens"][()], expected)


def test_a_missing_shard_is_an_error_and_not_zeros(frame, tmp_path):
    path = embed(frame, tmp_path / "a", 5)
    (tmp_path / "a/test/shard-3-of-5.h5").unlink()
    with pytest.raises(InputError, match=r"of which test/shard-3-of-5.h5 is missing beside it"):
        EmbeddingReader(path)


def test_shards_of_two_grids_are_refused(frame, tmp_path):
    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "big.png")
    odd = frame.copy()
    big = [str(tmp_path / "big.png"), sha256((tmp_path / "big.png").read_bytes())]
    odd.loc[Shard(1, 2).images(len(odd), batch_size=8).start :, ["image", "image_sha256"]] = big
    with pytest.raises(InputError, match=r"patch grids \[\(4, 3\), \(8, 8\)\].*need one shape"):
        embed(odd, tmp_path / "a", 2)


def test_an_empty_split_is_refused(frame, tmp_path):
    with pytest.raises(InputError, match="the split is empty"):
        embed(frame[:0], tmp_path / "a", 2)


def test_costs_are_summed(tmp_path):
    parts = [tmp_path / "0.json", tmp_path / "1.json"]
    for index, part in enumerate(parts):
        cost = {"seconds": 2.0, "images": 3.0 + index, "peak_host_mib": 10.0 * index, "peak_gpu_mib": None}
        write_cost(part, {**cost, "device": "cpu, 2 threads"})
    gather_costs(parts, tmp_path / "all.json")
    found = read_result(tmp_path / "all.json")
    assert {name: value for name, value in found.items() if name != "origin"} == {
        "seconds": 4.0,
        "images": 7.0,
        "peak_host_mib": 10.0,
        "peak_gpu_mib": None,
        "device": "cpu, 2 threads",
    }
