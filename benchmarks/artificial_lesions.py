"""Embeddings of healthy images and of the same with artificial lesions, to choose by without a real anomaly.

    python benchmarks/artificial_lesions.py RESULTS DATASET OUT.pt [--folds] [--every 2]

RESULTS: a run's folder with ``data/DATASET``. Lesions of five kinds are drawn into the normal images of the split
``valid``, one of each kind in each image. With ``--folds`` the splits ``train`` and ``valid`` are one, from which one
subject after the other can be left out. Block 6 and the last block of ViT-Tiny come from one pass. No lesion of any
data set is imitated.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from backbone import VIT_TINY
from scipy import ndimage
from torch.nn import functional

from dinodp.backbones import Backbone, load_backbone
from dinodp.datasets.manifest import read_manifest
from dinodp.embeddings import Embedder
from dinodp.images import read_image
from dinodp.metrics.anomaly_maps import anomaly_map
from dinodp.metrics.counts import CumulativeCounts
from dinodp.metrics.definitions import DEFINED
from dinodp.metrics.histograms import N_BINS, ScoreBins

LAYERS = {"b6": -7, "last": -1}
RADII, ASPECTS = (5.0, 20.0), (0.6, 1.6)  # of a lesion, pixels of 240 x 240
INSIDE = 0.9  # least share of a lesion's pixels that are not black
TRIES = 200
Plane = np.ndarray  # [H, W], float64, 0 to 1
Shape = tuple[Plane, Plane]  # soft (0 to 1) and hard (bool) mask [H, W]


# --- lesions ---------------------------------------------------------------------------------------------------------


def shape_in(brain: Plane, rng: np.random.Generator) -> Shape | None:
    """A wobbly ellipse, nearly all of it in the ``brain``; None where none fits."""
    rows, columns = np.indices(brain.shape)
    places = np.argwhere(brain)
    for _ in range(TRIES if len(places) else 0):
        centre = places[rng.integers(len(places))]
        radius, aspect, turn = rng.uniform(*RADII), rng.uniform(*ASPECTS), rng.uniform(0, np.pi)
        y, x = rows - centre[0], columns - centre[1]
        angle = np.arctan2(y, x) - turn
        distance = np.hypot((x * np.cos(turn) + y * np.sin(turn)) / aspect, y * np.cos(turn) - x * np.sin(turn))
        wobble = 1 + sum(rng.uniform(0, 0.15) * np.cos(n * angle + rng.uniform(0, 6.3)) for n in (2, 3, 4))
        soft = np.clip(radius * wobble - distance + 0.5, 0, 1) * brain
        hard = radius * wobble > distance
        if brain[hard].mean() >= INSIDE:
            return soft, hard & brain
    return None


def blob(image: Plane, other: Plane, shape: Shape, rng: np.random.Generator) -> Plane:
    """Brighter or darker by 0.1 to 0.4, with a soft border."""
    return image + rng.choice([-1, 1]) * rng.uniform(0.1, 0.4) * ndimage.gaussian_filter(shape[0], 1.5) * (image > 0)


def pasted(image: Plane, other: Plane, shape: Shape, rng: np.random.Generator) -> Plane:
    """What lies elsewhere in another subject, where that is brain."""
    moved = np.roll(np.flip(other, 1), rng.integers(-40, 41, 2), (0, 1))
    return blended(image, np.where(moved > 0, moved, image.max() - image), shape)


def texture(image: Plane, other: Plane, shape: Shape, rng: np.random.Generator) -> Plane:
    """Noise with the mean and spread of what was there."""
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape), rng.uniform(0.7, 2.0))
    there = image[shape[1]]
    return blended(image, there.mean() + there.std() * noise / noise.std(), shape)


def deformed(image: Plane, other: Plane, shape: Shape, rng: np.random.Generator) -> Plane:
    """A swelling or a shrinking about the middle."""
    centre = np.array(ndimage.center_of_mass(shape[1]))[:, None, None]
    away = np.indices(image.shape) - centre
    radius = 1.5 * np.sqrt(shape[1].sum() / np.pi)
    fall = np.clip(1 - np.square(away).sum(0) / radius**2, 0, 1)
    strength = rng.choice([-0.8, 0.6])
    return ndimage.map_coordinates(image, centre + away * (1 - strength * fall), order=1, mode="nearest")


def missing(image: Plane, other: Plane, shape: Shape, rng: np.random.Generator) -> Plane:
    """Tissue gone: as dark as fluid, never black."""
    noise = 0.01 * ndimage.gaussian_filter(rng.standard_normal(image.shape), 1.0)
    return blended(image, 0.12 * np.quantile(image[image > 0], 0.9) + noise, shape)


def blended(image: Plane, inside: Plane, shape: Shape) -> Plane:
    return image + shape[0] * (inside - image)


KINDS: dict[str, Callable[[Plane, Plane, Shape, np.random.Generator], Plane]] = {
    "blob": blob, "pasted": pasted, "texture": texture, "deformed": deformed, "missing": missing,
}  # fmt: skip


def drawn(image: np.ndarray, other: np.ndarray, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 [H, W, 3] with a lesion, and its mask; black stays black, and nothing else becomes so."""
    grey, foreign = image[:, :, 0] / 255, other[:, :, 0] / 255
    shape = shape_in(grey > 0, rng)
    if shape is None:
        return image, np.zeros(grey.shape, bool)
    changed = np.where(grey > 0, np.clip(KINDS[kind](grey, foreign, shape, rng), 1 / 255, 1), 0)
    return np.repeat(np.round(changed * 255).astype(np.uint8)[:, :, None], 3, 2), shape[1]


# --- embeddings ------------------------------------------------------------------------------------------------------


def embedded(backbone: Backbone, pictures: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens float16 [image, row, col, layers x D], unit vectors of each layer, and foreground [image, row, col]."""
    parts = list(Embedder(backbone, workers=1).embed_shown(pictures, lambda picture: picture))
    return torch.cat([tokens.half() for tokens, _ in parts]), torch.cat([shown for _, shown in parts])


def lesioned(pictures: list[np.ndarray], subjects: np.ndarray, kind: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Each picture with a lesion of a kind, and the masks; pasted is what is of another subject, at any level."""
    made = []
    for number, picture in enumerate(pictures):
        rng = np.random.default_rng([list(KINDS).index(kind), number])
        others = np.flatnonzero(subjects != subjects[number])
        other = pictures[rng.choice(others) if len(others) else rng.integers(len(pictures))]
        made.append(drawn(picture, other, kind, rng))
    return [picture for picture, _ in made], np.stack([mask for _, mask in made])


def main() -> None:
    """Write tokens of the training split's foreground, and of images with lesions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", action="store_true", help="lesions in the training images, too")
    parser.add_argument("--every", type=int, default=1, help="lesions in every n-th image")
    options = parser.parse_args()
    folder = options.results / "data" / options.dataset
    manifest = read_manifest(folder / "manifest.csv")
    backbone = load_backbone(str(VIT_TINY), resolution=448, layers=list(LAYERS.values()), engine="auto")
    healthy = manifest[manifest["label"].eq("normal") & manifest["split"].ne("test")]
    train = healthy[options.folds | healthy["split"].eq("train")]
    tokens, shown = embedded(backbone, read(folder, train))
    sizes = shown.sum((1, 2)).numpy()
    found = {"train": tokens[shown], "subjects": np.repeat(train["subject"].to_numpy(), sizes), "lesions": {}}
    held = healthy[options.folds | healthy["split"].eq("valid")].iloc[:: options.every]
    pictures, subjects = read(folder, held), held["subject"].to_numpy()
    tokens, shown = embedded(backbone, pictures)
    found["healthy"] = {"tokens": tokens, "shown": shown, "subjects": subjects}
    for kind in KINDS:
        made, masks = lesioned(pictures, subjects, kind)
        tokens, shown = embedded(backbone, made)
        found["lesions"][kind] = {"tokens": tokens, "shown": shown, "masks": masks, "subjects": subjects}
        print(kind, len(masks), round(float(masks.mean()), 5), flush=True)
    torch.save(found, options.out)


def read(folder: Path, rows: pd.DataFrame) -> list[np.ndarray]:
    return [read_image(folder / path) for path in rows["image"]]


# --- measures --------------------------------------------------------------------------------------------------------


def layer_of(tokens: torch.Tensor, layer: str) -> torch.Tensor:
    """Unit vectors float32 [..., D] of one of ``LAYERS``."""
    width = tokens.shape[-1] // len(LAYERS)
    first = list(LAYERS).index(layer) * width
    return functional.normalize(tokens[..., first : first + width].float(), dim=-1)


def pixel_metrics(scores: torch.Tensor, lesions: dict, sigma: float = 0.0) -> tuple[float, float]:
    """AUROC and AP of all pixels from scores [n] of the foreground patches; black patches are scored lowest."""
    shown = lesions["shown"]
    maps = torch.full(shown.shape, float(scores.min()))
    maps[shown] = scores.float()
    bins, counts = ScoreBins.of(maps.numpy()), np.zeros((2, N_BINS))
    for patches, mask in zip(maps.numpy(), lesions["masks"], strict=True):
        index = bins.index(anomaly_map(patches, mask.shape, sigma))
        counts[0] += np.bincount(index.ravel(), minlength=N_BINS)
        counts[1] += np.bincount(index[mask], minlength=N_BINS)
    occupied = np.flatnonzero(counts[0])[::-1]
    every, anomalous = counts[:, occupied].cumsum(1)
    above = CumulativeCounts(every - anomalous, anomalous, np.zeros_like(every), np.asarray(1.0), tied=True)
    auroc, ap = (float(DEFINED[name].compute(above)) for name in ("pixel_auroc", "pixel_average_precision"))
    return auroc, ap


def over_kinds(
    score: Callable[[torch.Tensor], torch.Tensor], found: dict, layer: str, sigma: float = 0.0
) -> dict[str, float]:
    """Mean AUROC and geometric mean of AP over the kinds of lesion, and the AP of each."""
    values = {
        kind: pixel_metrics(score(layer_of(lesions["tokens"], layer)[lesions["shown"]]), lesions, sigma)
        for kind, lesions in found["lesions"].items()
    }
    auroc, ap = np.array(list(values.values())).T
    each = {f"ap_{kind}": value for kind, (_, value) in values.items()}
    return {"mean_auroc": float(auroc.mean()), "gm_ap": float(np.exp(np.log(ap).mean())), **each}


if __name__ == "__main__":
    main()
