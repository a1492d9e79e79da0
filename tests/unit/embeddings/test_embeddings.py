import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dinodp.backbones import load_backbone
from dinodp.embeddings import Embedder, EmbeddingReader, computing, embed_split
from dinodp.embeddings.reader import on_grid
from dinodp.errors import InputError
from dinodp.jobs.closure import LIBRARY, Closures
from dinodp.jobs.origin import sha256


class MeanColour:
    """A backbone whose embedding is the mean colour of each 8-pixel patch and a constant."""

    name = "mean_colour"

    def __init__(self, fail_after=None, scale=1.0):
        self.fail_after, self.scale, self.calls = fail_after, scale, 0

    def provenance(self):
        return {"backbone": self.name, "patch_size": "8"}

    def prepare(self, image):
        return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255

    def embed(self, pixels):
        self.calls += 1
        if self.fail_after is not None and self.calls > self.fail_after:
            raise KeyboardInterrupt
        means = torch.nn.functional.avg_pool2d(pixels, 8).permute(0, 2, 3, 1)
        return torch.cat([means * self.scale, torch.ones_like(means[..., :1])], dim=-1)


@pytest.fixture
def frame(tmp_path):
    generator = np.random.default_rng(0)
    rows = []
    for index in range(7):
        path = tmp_path / f"{index}.png"
        Image.fromarray(generator.integers(0, 255, (32, 24, 3), dtype=np.uint8)).save(path)
        rows.append({"image": str(path), "image_sha256": sha256(path.read_bytes())})
    return pd.DataFrame(rows)


def test_rows_follow_the_manifest(frame, tmp_path):
    path = tmp_path / "test.h5"
    assert embed_split(frame, MeanColour(), path, {}, batch_size=3)["images"] == 7
    tokens = EmbeddingReader(path, normalise=False, grid=None).read([5])
    expected = np.asarray(Image.open(frame["image"][5]))[:8, :8].reshape(-1, 3).mean(axis=0) / 255
    assert tokens.shape == (1, 4, 3, 4)
    np.testing.assert_allclose(tokens[0, 0, 0, :3], expected, atol=1e-3)


def test_the_file_holds_what_the_backbone_gives(frame, tmp_path):
    path, backbone = tmp_path / "test.h5", MeanColour()
    embed_split(frame, backbone, path, {}, batch_size=2, workers=3)
    plain = [backbone.embed(backbone.prepare(np.asarray(Image.open(image)))[None]) for image in frame["image"]]
    assert torch.equal(
        EmbeddingReader(path, normalise=False, grid=None).read(range(7)), torch.cat(plain).half().float()
    )


def test_an_interrupted_run_goes_on_to_the_same_bytes(frame, tmp_path):
    whole, broken = tmp_path / "whole.h5", tmp_path / "broken.h5"
    embed_split(frame, MeanColour(), whole, {"a": 1}, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        embed_split(frame, MeanColour(fail_after=2), broken, {"a": 1}, batch_size=2)
    assert not broken.exists()
    second = MeanColour()
    assert embed_split(frame, second, broken, {"a": 1}, batch_size=2)["images"] == 3
    assert second.calls == 2
    assert broken.read_bytes() == whole.read_bytes()


def test_an_interrupted_run_of_another_configuration_starts_anew(frame, tmp_path):
    path = tmp_path / "x.h5"
    with pytest.raises(KeyboardInterrupt):
        embed_split(frame, MeanColour(fail_after=2), path, {"a": 1}, batch_size=2)
    assert embed_split(frame, MeanColour(), path, {"a": 2}, batch_size=2)["images"] == 7


@pytest.mark.parametrize(
    ("module", "done"), [("scans/writing/gallery.py", 3), ("families/mixture.py", 3), ("store.py", 7), ("images.py", 7)]
)
def test_an_interrupted_run_goes_on_after_an_edit_of_code_that_it_does_not_run(
    frame, tmp_path, monkeypatch, module, done
):
    library = tmp_path / "dinodp"
    shutil.copytree(LIBRARY, library)
    monkeypatch.setattr(computing, "code_digest", lambda name: Closures(library).digest(name))
    with pytest.raises(KeyboardInterrupt):
        embed_split(frame, MeanColour(fail_after=2), tmp_path / "x.h5", {}, batch_size=2)
    with (library / module).open("a") as file:
        file.write("EDITED = 1\n")
    assert embed_split(frame, MeanColour(), tmp_path / "x.h5", {}, batch_size=2)["images"] == done


def test_normalised_then_resampled(frame, tmp_path):
    path = tmp_path / "x.h5"
    embed_split(frame, MeanColour(), path, {})
    unit = EmbeddingReader(path, normalise=True, grid=None).read([0, 1])
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(2, 4, 3))
    resampled = EmbeddingReader(path, normalise=True, grid=(8, 8)).read([0, 1])
    assert resampled.shape == (2, 8, 8, 4)
    assert (resampled.norm(dim=-1) < 1 - 1e-6).any()


def test_rows_restrict_the_file(frame, tmp_path):
    path = tmp_path / "x.h5"
    embed_split(frame, MeanColour(), path, {})
    reader = EmbeddingReader(path, rows=[4, 6], grid=None)
    assert reader.n_images == 2
    torch.testing.assert_close(reader.read([1]), EmbeddingReader(path, grid=None).read([6]))


def test_file_says_what_made_it(frame, tmp_path):
    import h5py

    path = tmp_path / "x.h5"
    embed_split(frame, MeanColour(), path, {"resolution": 448})
    with h5py.File(path) as file:
        assert file["tokens"].chunks is None
        assert file["tokens"].dtype == np.float16
        assert json.loads(file.attrs["config"]) == {"resolution": 448}
        assert file.attrs["backbone"] == "mean_colour"


def test_empty_split_is_refused(tmp_path):
    with pytest.raises(InputError, match="the split is empty"):
        embed_split(pd.DataFrame({"image": [], "image_sha256": []}), MeanColour(), tmp_path / "x.h5", {})


def test_images_of_two_shapes_are_refused(frame, tmp_path):
    Image.new("RGB", (64, 64)).save(frame["image"][3])
    frame.loc[3, "image_sha256"] = sha256(Path(frame["image"][3]).read_bytes())
    with pytest.raises(InputError, match="need one shape"):
        embed_split(frame, MeanColour(), tmp_path / "x.h5", {})
    assert not (tmp_path / "x.h5").exists()


def test_embeddings_beyond_float16_are_refused(frame, tmp_path):
    with pytest.raises(InputError, match="range of float16"):
        embed_split(frame, MeanColour(scale=1e6), tmp_path / "x.h5", {})


def test_patches_whose_pixels_are_all_black_are_no_foreground(tmp_path):
    """By their pixels as the backbone sees them; one grey level is enough, in any channel."""
    backbone = load_backbone("classical", resolution=56)
    picture = np.zeros((56, 56, 3), dtype=np.uint8)
    picture[14, 41, 2] = 1  # patch (1, 2) of 4 x 4
    batches = list(Embedder(backbone, 2).embed_shown([picture, picture * 0, picture + 1], lambda item: item))
    shown = torch.cat([shown for _, shown in batches])
    assert shown.dtype == torch.bool
    assert shown[0].nonzero().tolist() == [[1, 2]]
    assert not shown[1].any()
    assert shown[2].all()


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 6), (3, 5), (12, 18), (16, 20)])
def test_a_place_of_the_grid_shows_what_any_of_its_pixels_shows(grid):
    """Where the grid divides the picture, where it does not, and where it is finer than the pixels."""
    shown = torch.rand(2, 12, 18, generator=torch.Generator().manual_seed(0)) > 0.9
    expected = torch.zeros(2, *grid, dtype=torch.bool)
    for row in range(grid[0]):
        for column in range(grid[1]):
            first, left = 12 * row // grid[0], 18 * column // grid[1]
            last, right = -(-12 * (row + 1) // grid[0]), -(-18 * (column + 1) // grid[1])
            expected[:, row, column] = shown[:, first:last, left:right].flatten(1).any(1)
    assert torch.equal(on_grid(shown, grid), expected)
