"""Own scans through ViT-Tiny, on volumes of OASIS: `predict` and a fit against the bare backbone, and the engines.

`predict` reads, embeds, scores, enlarges and writes maps, tables' rows and the gallery's pictures; a fit reads, embeds
and keeps embeddings; the bare backbone embeds the same slices, prepared beforehand. The engines embed one batch of
slices; drift is 1 - cosine of the patch tokens against PyTorch in float32, after block 6 and after the last.
"""

import tempfile
from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from backbone import VIT_TINY
from runner import SHARED, Row, alternate, arguments, report

from dinodp.backbones import load_backbone
from dinodp.scans.detecting.fitting import embed_scans, fit_detector, unread_scans
from dinodp.scans.detecting.machine import Machine
from dinodp.scans.detecting.model_file import FittedDetector
from dinodp.scans.detecting.preparation import Preparation
from dinodp.scans.detecting.settings import Settings
from dinodp.scans.reading.folder import read_scan
from dinodp.scans.writing.prediction import PredictionOptions, Result, predict_scans

ENGINES = {
    "openvino float32": ("openvino", "float32"),
    "openvino bfloat16": ("openvino", "bfloat16"),
    "torch bfloat16": ("torch", "bfloat16"),
}
LEARNT, NEW, BATCH, MIDDLE = 4, 2, 4, 40  # volumes, volumes, slices, first of the slices of the engines
LAYERS = (6, -1)


class Forgetful:
    """Nothing was done before."""

    def done(self, name: str, path: Path) -> Result | None:
        return None

    def keep(self, result: Result) -> None:
        pass


def scans(split: str, number: int) -> list[tuple[str, Path]]:
    files = sorted((SHARED / "data/oasis_t1" / split).glob("*_t1.nii.gz"))[:number]
    return [(file.name, file) for file in files]


def pixels_of(detector: FittedDetector, path: Path) -> torch.Tensor:
    """All slices of a volume, prepared for the backbone [n, 3, H, W]."""
    preparation, backbone = detector.scorer.preparation, detector.scorer.embedder.backbone
    prepared = preparation.of_new(read_scan("scan", path, preparation.reading()), 1, force=False)
    return torch.stack([backbone.prepare(picture) for picture in prepared.pictures()])


def embed(backbone: object, pixels: torch.Tensor) -> torch.Tensor:
    return torch.cat([backbone.embed(batch) for batch in pixels.split(BATCH)])


def against_the_backbone(detector: FittedDetector, number: int, repeats: int) -> Row:
    new = scans("valid", number)
    pixels = torch.cat([pixels_of(detector, path) for _, path in new])
    with tempfile.TemporaryDirectory() as folder:

        def ours() -> None:
            results = list(predict_scans(new, detector, Path(folder), PredictionOptions(), Forgetful()))
            assert not any(result.failed for result in results)

        row = alternate(ours, partial(embed, detector.scorer.embedder.backbone, pixels), repeats)
    return {"what": "predict / bare backbone", "volumes": number, "slices": len(pixels), **row}


def fit_against_the_backbone(detector: FittedDetector, number: int, repeats: int) -> Row:
    """Of a fit what it does per slice; the model is fitted afterwards."""
    scorer, new = detector.scorer, scans("valid", number)
    pixels = torch.cat([pixels_of(detector, path) for _, path in new])
    every = Preparation(replace(scorer.settings, slice_step=1), scorer.preparation.healthy)
    unread = unread_scans(new, every.settings)
    with tempfile.TemporaryDirectory() as folder:

        def ours() -> None:
            file = embed_scans(unread, "embed", scorer.embedder, every, Path(folder))
            assert file.n_images == len(pixels)
            file.close()

        row = alternate(ours, partial(embed, scorer.embedder.backbone, pixels), repeats)
    return {"what": "embedding of a fit / bare backbone", "volumes": number, "slices": len(pixels), **row}


def engine_rows(pixels: torch.Tensor, repeats: int) -> list[Row]:
    plain, rows = load_backbone(str(VIT_TINY), resolution=448, layers=LAYERS), []
    exact = plain.embed(pixels).unflatten(-1, (len(LAYERS), -1))
    for name, (engine, dtype) in ENGINES.items():
        other = load_backbone(str(VIT_TINY), resolution=448, layers=LAYERS, engine=engine, dtype=dtype)
        found = other.embed(pixels).unflatten(-1, (len(LAYERS), -1))
        drift = 1 - torch.nn.functional.cosine_similarity(found.double(), exact.double(), dim=-1)
        layers = {
            str(layer): {"mean": float(f"{values.mean():.2g}"), "largest": float(f"{values.max():.2g}")}
            for layer, values in zip(LAYERS, drift.unbind(-1), strict=True)
        }
        row = alternate(partial(other.embed, pixels), partial(plain.embed, pixels), repeats)
        rows.append({"what": f"{name} / torch float32", "drift": layers, "batch": len(pixels), **row})
    return rows


def measure(options: Namespace) -> list[Row]:
    settings = Settings(str(VIT_TINY), layers=(6,), slice_step=16, method={"family": "eb_mixture", "components": 50})
    machine = Machine(options.device, BATCH)
    detector = fit_detector(unread_scans(scans("train", LEARNT), settings), settings, machine)
    number = 1 if options.small else NEW
    rows = [compare(detector, number, options.repeats) for compare in (against_the_backbone, fit_against_the_backbone)]
    pixels = pixels_of(detector, scans("valid", 1)[0][1])[MIDDLE : MIDDLE + BATCH]
    return rows + engine_rows(pixels, options.repeats)


if __name__ == "__main__":
    options = arguments(__doc__)
    report("own_scans", measure(options), options)
