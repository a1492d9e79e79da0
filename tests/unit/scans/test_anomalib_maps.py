"""Maps that anomalib's PatchCore wrote, judged here and by anomalib itself."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from project_copy import picture

from dinodp.cli import main


def test_the_values_are_anomalibs(tmp_path, root):
    folder = root / "tests/data/anomalib"
    expected = json.loads((folder / "values.json").read_text())
    with np.load(folder / "maps.npz") as maps:
        for name in (name for name in maps if name.startswith("test/")):
            spot = picture(tmp_path / "picture.png", 0) & ("spot" in name)
            for place in ("maps", "masks"):
                (tmp_path / place / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / f"maps/{name}.npy", maps[name])
            Image.fromarray(spot.astype(np.uint8) * 255).save(tmp_path / f"masks/{name}.png")
    given = ["evaluate", str(tmp_path / "maps"), "--masks", str(tmp_path / "masks"), "--out", str(tmp_path / "out.csv")]
    assert main([*given, "--resamples", "20"]) == 0
    table = pd.read_csv(tmp_path / "out.csv")
    pooled = table[table["over"] == "all pixels"].set_index("metric")["value"]
    for name in ("pixel_auroc", "pixel_average_precision", "aupro_30"):
        assert pooled[name] == pytest.approx(expected[name], abs=2e-5), name
    images = table[(table["metric"] == "scan_auroc") & (table["score"] == "max")]["value"]
    assert images.tolist() == [expected["image_auroc"]]  # PatchCore's own score is another; both tell all apart here
