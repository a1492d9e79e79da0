"""Anomaly maps of anomalib's PatchCore, one float32 .npy per image, for `dinodp evaluate` and `family: external`.

    python examples/anomalib_patchcore.py --train data/set/train/good --images data/set/test data/set/valid --out maps/

Needs anomalib (2.7.0 was run) and its torch. ``--backbone resnet18`` with ``--weights random`` needs no download: good
enough to show the way, not to detect disease. ``--masks FOLDER --record FILE``: also anomalib's own metrics of the maps
of the first folder of ``--images`` (masks called as `image_folder` has them).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LAYERS, NEIGHBOURS, CORESET = ("layer1", "layer2"), 9, 0.1
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


def pictures(folder: Path) -> list[Path]:
    """The images below a folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def batch(path: Path) -> Any:
    """An image as ImageNet's networks want it, float32 [1, 3, H, W]."""
    import torch

    values = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return torch.from_numpy(((values - mean) / std).transpose(2, 0, 1)[None].copy())


def fit(folder: Path, backbone: str, pretrained: bool) -> Any:
    """PatchCore of healthy images of one size."""
    import torch
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    torch.manual_seed(0)
    model = PatchcoreModel(LAYERS, backbone=backbone, pre_trained=pretrained, num_neighbors=NEIGHBOURS).train()
    model.feature_extractor.eval()
    with torch.no_grad():
        for path in pictures(folder):
            model(batch(path))
        model.subsample_embedding(CORESET)
    return model.eval()


def metrics(maps: list[np.ndarray], scores: list[float], masks: list[np.ndarray]) -> dict[str, float]:
    """Anomalib's metrics of pixels and images."""
    import torch
    from anomalib.metrics.aupr import _AUPR
    from anomalib.metrics.aupro import _AUPRO
    from anomalib.metrics.auroc import _AUROC

    stacked, labels = torch.from_numpy(np.stack(maps)), torch.from_numpy(np.stack(masks).astype(np.int64))
    found = {"pixel_auroc": _AUROC(), "pixel_average_precision": _AUPR(), "aupro_30": _AUPRO(fpr_limit=0.3)}
    for metric in found.values():
        metric.update(stacked, labels)
    images = _AUROC()
    images.update(torch.tensor(scores), labels.flatten(1).amax(1))
    return {name: float(metric.compute()) for name, metric in {**found, "image_auroc": images}.items()}


def main(arguments: list[str] | None = None) -> None:
    """Fit, write the maps, and the metrics where they are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--images", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbone", default="wide_resnet50_2")
    parser.add_argument("--weights", choices=("pretrained", "random"), default="pretrained")
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args(arguments)
    import torch

    model = fit(options.train, options.backbone, options.weights == "pretrained")
    found: dict[Path, tuple[np.ndarray, float]] = {}
    for folder in options.images:
        for path in pictures(folder):
            with torch.no_grad():
                result = model(batch(path))
            found[path] = result.anomaly_map[0, 0].numpy(), float(result.pred_score)
            place = options.out / folder.name / path.relative_to(folder).with_suffix(".npy")
            place.parent.mkdir(parents=True, exist_ok=True)
            np.save(place, found[path][0])
    if options.record:
        first = options.images[0]
        masks = [options.masks / path.relative_to(first).parent / f"{path.stem}_mask.png" for path in pictures(first)]
        labels = [
            np.asarray(Image.open(mask)) > 0 if mask.exists() else np.zeros(found[path][0].shape, bool)
            for path, mask in zip(pictures(first), masks, strict=True)
        ]
        maps, scores = zip(*(found[path] for path in pictures(first)), strict=True)
        options.record.write_text(json.dumps(metrics(list(maps), list(scores), labels), indent=1) + "\n")


if __name__ == "__main__":
    main()
