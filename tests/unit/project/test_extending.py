"""The worked examples of docs/extending.md, run as they stand there."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dinodp import store
from dinodp.datasets.manifest import SPLITS, read_manifest, select, write_manifest
from dinodp.datasets.sources.options import complete
from dinodp.embeddings import EmbeddingReader, embed_split
from dinodp.errors import InputError
from dinodp.families.stages import fit_model, load_model, score_split
from dinodp.metrics import evaluate
from dinodp.metrics.streaming import PIXEL_METRICS
from dinodp.report.figures import FigureData, ModelData, save_figure


@pytest.fixture
def example(root):
    """Run the code block of a name and return what it defines."""

    def run(name):
        text = (root / "docs/extending.md").read_text()
        (code,) = re.findall(rf"<!-- example: {name} -->\n```python\n(.*?)```", text, flags=re.S)
        defined = {}
        exec(compile(code, f"extending.md, {name}", "exec"), defined)
        return defined

    return run


def test_dataset(example, tmp_path):
    source = example("dataset")
    generator = np.random.default_rng(0)
    for split in SPLITS:
        masks = np.zeros((3, 8, 8), dtype=np.uint8)
        masks[2] = 255 * (split == "test")
        np.savez(tmp_path / f"{split}.npz", images=generator.integers(0, 256, (3, 8, 8), dtype=np.uint8), masks=masks)
    frame = source["prepare"](complete({"root": str(tmp_path)}, source["OPTIONS"]), tmp_path / "out")
    write_manifest(frame, tmp_path / "out/manifest.csv")
    assert select(read_manifest(tmp_path / "out/manifest.csv"), "test")["label"].tolist().count("anomalous") == 1
    (tmp_path / "valid.npz").unlink()
    with pytest.raises(InputError, match=r"there is no .*valid.npz; the root must hold train, valid, test"):
        source["prepare"]({"root": str(tmp_path)}, tmp_path / "other")
    assert not (tmp_path / "other/slices").exists()


def test_backbone(example, tmp_path):
    backbone = example("backbone")["MeanColourBackbone"](resolution=28)
    Image.new("RGB", (28, 28), (255, 0, 51)).save(tmp_path / "a.png")
    frame = pd.DataFrame({"image": [str(tmp_path / "a.png")], "image_sha256": ["a"]})
    embed_split(frame, backbone, tmp_path / "tokens.h5", {}, workers=1)
    tokens = EmbeddingReader(tmp_path / "tokens.h5", normalise=False, grid=None).read([0])
    np.testing.assert_allclose(tokens, np.broadcast_to([1.0, 0.0, 0.2], (1, 2, 2, 3)), atol=1e-3)


def test_model(example, tmp_path, monkeypatch):
    with store.writing(tmp_path / "tokens.h5", "embeddings", {}) as file:
        data = np.random.default_rng(0).normal(1.0, [1.0, 2.0, 3.0], (6, 4, 4, 3)).astype(np.float16)
        data[5, 0, 0] = [9, 1, 20]
        file.create_dataset("tokens", data=data)
    reader = EmbeddingReader(tmp_path / "tokens.h5", normalise=False, grid=None)
    options = {"family": "prototype", "scores": ["euclidean"]}
    cost = fit_model(tmp_path / "model.h5", options, reader, reader, seed=0, device="cpu")
    model = load_model(tmp_path / "model.h5", reader, device="cpu")
    score_split(model, reader, pd.DataFrame({"label": ["normal"] * 6}), tmp_path / "scores.h5")
    x = data.reshape(-1, 3).astype(np.float64)
    found = store.read_maps(tmp_path / "scores.h5")["euclidean"]
    np.testing.assert_allclose(found.ravel(), np.linalg.norm(x - x.mean(axis=0), axis=1), rtol=1e-4)
    assert np.unravel_index(found.argmax(), found.shape) == (5, 0, 0)
    assert cost == {"model_mib": 12 / 2**20, "active_components": 1}


def test_metric(example, monkeypatch):
    monkeypatch.setitem(PIXEL_METRICS, "fpr_at_95_tpr", example("metric")["fpr_at_95_tpr"])
    maps = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    mask = np.zeros((1, 4, 4), dtype=np.uint8)
    mask[0, 3] = 255  # scores 12 to 15
    mask[0, 2, 1] = 255  # score 9: needed for 95 % of five pixels; the normal ones above it are 10 and 11
    assert evaluate(maps, mask, maps)["fpr_at_95_tpr"] == pytest.approx(2 / 11)


def test_figure(example, tmp_path):
    scores = {"cosine": np.linspace(0, 1, 6, dtype=np.float32)}
    model = ModelData("bank", "memory_bank", {"cosine": np.zeros((6, 2, 2), np.float32)}, image_scores=scores)
    manifest = pd.DataFrame({"label": ["normal"] * 3 + ["anomalous"] * 3})
    data = FigureData("title", manifest, [model], read_tokens=lambda rows: torch.zeros(1))
    save_figure(example("figure")["draw"](data), tmp_path / "f.png", tmp_path / "f.pdf")
    assert (tmp_path / "f.png").stat().st_size > 5000
