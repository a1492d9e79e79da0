"""Test images and their masks: which cases to show, and which patches are anomalous."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from dinodp.images import read_lesion, read_values
from dinodp.report.figures.data import Array, FigureData


class ExampleImage(NamedTuple):
    """A test image to show: its row in the test manifest and why it was chosen."""

    row: int
    label: str


def read_grey_image(path: str | Path) -> Array:
    """Image as stored, [height, width] when all channels are equal, otherwise [height, width, 3]."""
    pixels = read_values(path)
    return pixels[..., 0] if pixels.ndim == 3 and (pixels == pixels[..., :1]).all() else pixels


def resize_map(values: Array, shape: tuple[int, int], method: Image.Resampling = Image.Resampling.BILINEAR) -> Array:
    """Resize a map [row, col] to ``shape`` (height, width)."""
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.resize((shape[1], shape[0]), method))


def lesion_fractions(manifest: pd.DataFrame, mask_rule: str) -> Array:
    """Fraction of each test image covered by its mask, [n]; 0 without a mask."""
    return np.array([read_lesion(path, mask_rule).mean() if path else 0.0 for path in _masks(manifest)])


def select_examples(data: FigureData) -> list[ExampleImage]:
    """Largest, median and smallest lesion, and the normal image in the middle; by label alone where no mask has one."""
    fractions = lesion_fractions(data.manifest, data.mask_rule)
    order = [int(row) for row in np.argsort(-fractions, kind="stable") if fractions[row] > 0]
    if not order:
        return _examples_by_label(data.manifest)
    ranked = {order[0]: "Largest lesion"}
    ranked.setdefault(order[len(order) // 2], "Median lesion")
    ranked.setdefault(order[-1], "Smallest lesion")
    cases = [ExampleImage(row, f"{name}\n({100 * fractions[row]:.2g} % of image)") for row, name in ranked.items()]
    normal = np.flatnonzero((data.manifest["label"] == "normal").to_numpy())
    return [*cases, ExampleImage(int(normal[len(normal) // 2]), "Normal image")] if len(normal) else cases


def _examples_by_label(manifest: pd.DataFrame) -> list[ExampleImage]:
    """Where no mask tells the size of a lesion: images in the middle and at the ends of the manifest's order."""
    found = []
    for label, places in (("anomalous", (0.0, 0.5, 1.0)), ("normal", (0.5,))):
        rows = np.flatnonzero((manifest["label"] == label).to_numpy())
        chosen = sorted({int(rows[round(place * (len(rows) - 1))]) for place in places}) if len(rows) else []
        name = "Anomalous image\n(no mask)" if label == "anomalous" else "Normal image"
        found += [ExampleImage(row, name) for row in chosen]
    return found


def patch_coverage(manifest: pd.DataFrame, grid: tuple[int, int], mask_rule: str) -> Array:
    """Fraction of each patch's area covered by the mask, [n, row, col]; NaN for an anomalous image without mask."""
    missing = [
        label == "anomalous" and not path for label, path in zip(manifest["label"], _masks(manifest), strict=True)
    ]
    maps = [
        resize_map(read_lesion(path, mask_rule), grid, Image.Resampling.BOX)
        if path
        else np.full(grid, np.nan if unknown else 0.0)
        for path, unknown in zip(_masks(manifest), missing, strict=True)
    ]
    return np.stack(maps)


def _masks(manifest: pd.DataFrame) -> Iterator[str]:
    return (path if isinstance(path, str) else "" for path in manifest["mask"])
