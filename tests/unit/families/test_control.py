"""The oracle is a bound under every mask rule."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dinodp import store
from dinodp.datasets.manifest import image_row, make_manifest, manifest_digest, select
from dinodp.embeddings import EmbeddingReader
from dinodp.evaluation.test_split import evaluate_scores
from dinodp.families.control import Control
from dinodp.families.stages import score_split
from dinodp.images import MASK_RULES
from dinodp.jobs.files import read_json
from dinodp.options.protocol import Protocol


@pytest.fixture
def scored(tmp_path):
    """Masks of levels 58, 122 and 255, one inside the other as in BMAD's brains, and the oracle's scores of them."""
    rows = []
    for split, label in (
        ("train", "normal"),
        ("valid", "normal"),
        *[("test", "normal")] * 2,
        *[("test", "anomalous")] * 4,
    ):
        index = len(rows)
        path, mask = (tmp_path / f"{split}{index}{end}.png" for end in ("", "-mask"))
        levels = np.zeros((128, 128), dtype=np.uint8)
        if label == "anomalous":
            levels[16:96, 16:96] = 58
            levels[32:88, 32:88] = 122
            levels[40 : 56 + index, 40:64] = 255
        Image.fromarray(levels).save(path)
        Image.fromarray(levels).save(mask)
        rows.append(image_row(split, label, path, mask if levels.any() else None, f"s{index}"))
    manifest = make_manifest(rows)
    for split in ("valid", "test"):
        frame = select(manifest, split)
        with store.writing(tmp_path / "tokens.h5", "embeddings", {}) as file:
            file.create_dataset("tokens", data=np.zeros((len(frame), 32, 32, 1), dtype=np.float16))
        reader = EmbeddingReader(tmp_path / "tokens.h5", normalise=False, grid=None)
        made_from = {"manifest": manifest_digest(manifest), "model": "0"}
        path = tmp_path / f"{split}.h5"
        score_split(Control(["oracle", "random"], 0), reader, frame, path, made_from=made_from)
    return tmp_path, manifest


def test_the_oracle_is_a_bound_under_every_rule(scored):
    folder, manifest = scored
    evaluate_scores(
        test_scores=folder / "test.h5", valid_scores=folder / "valid.h5", manifest=manifest, labels={},
        protocol=Protocol(mask_rules=tuple(MASK_RULES), resamples=0),
        metrics_path=folder / "m.json", curves_path=folder / "c.h5",
    )  # fmt: skip
    found = read_json(folder / "m.json")["metrics"]
    assert set(found) == {"oracle", "random"}
    for rule in MASK_RULES:
        assert found["oracle"][rule]["pixel_average_precision"] > 0.98
        assert found["oracle"][rule]["pixel_auroc"] > 0.999
        assert found["oracle"][rule]["image_auroc"] == 1
        assert found["random"][rule]["pixel_auroc"] == pytest.approx(0.5, abs=0.1)
    assert found["oracle"]["eq255"]["prevalence"] < found["oracle"]["gt0"]["prevalence"] / 5


def test_scores_are_read_as_they_are_under_a_rule(scored):
    folder, _ = scored
    maps = {rule: store.read_maps(folder / "test.h5", rule) for rule in MASK_RULES}
    assert (maps["gt0"]["random"] == maps["eq255"]["random"]).all()
    assert maps["eq255"]["oracle"].sum() < maps["gt0"]["oracle"].sum() / 5
    images = store.read_image_scores(folder / "test.h5", "eq255")
    assert images["oracle"].tolist() == [0, 0, 1, 1, 1, 1]


def test_an_anomalous_image_without_mask_is_anomalous_everywhere():
    row = pd.DataFrame({"mask": [""], "label": ["anomalous"], "image_sha256": ["a"]})
    (maps,) = Control(["oracle"], 0).score(torch.zeros(1, 2, 3, 1), row)["oracle/eq255"]
    assert maps.tolist() == [[1, 1, 1]] * 2
