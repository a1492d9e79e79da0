"""What `run.lesions` adds to the evaluation of one model: processor time without it, with it, and of boxes, in turn.

Random maps of 32x32 patches, smoothed, an ellipse as lesion of each second image of 240x240, 1,000 resamples of
subjects with five images each: python benchmarks/lesions_found.py [images] [rounds]
"""

import sys
from collections.abc import Iterator
from time import process_time
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dinodp.metrics import Bootstrap, evaluate_stream
from dinodp.options.protocol import Protocol

SIDE, PATCHES = 240, 32


def made(n_images: int) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.uint8]]]:
    """Maps [n, row, col] and masks [H, W]; lesions score higher."""
    rng, (y, x) = np.random.default_rng(0), np.indices((SIDE, SIDE))
    maps = ndimage.gaussian_filter(rng.gamma(2, 1, (n_images, PATCHES, PATCHES)), (0, 1, 1)).astype(np.float32)
    masks = []
    for index in range(n_images):
        (cy, cx), (ry, rx) = rng.uniform(60, 180, 2), rng.uniform(8, 40, 2)
        inside = (((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1) & bool(index % 2)
        maps[index] += 0.5 * ndimage.zoom(inside.astype(np.float32), PATCHES / SIDE, order=1)
        masks.append(np.uint8(255 * inside))
    return maps, masks


def boxed(masks: list[npt.NDArray[np.uint8]]) -> Iterator[tuple[npt.NDArray[np.bool_], list[tuple[slice, ...]]]]:
    """The box around each lesion."""
    for mask in masks:
        parts = [part for part in ndimage.find_objects((mask > 0).astype(np.int8)) if part is not None]
        inside = np.zeros(mask.shape, dtype=bool)
        for part in parts:
            inside[part] = True
        yield inside, parts


def main(n_images: int, rounds: int) -> None:
    """Print seconds of the processor of each round, and their ratio to the evaluation without lesions."""
    maps, masks = made(n_images)
    labels = np.array([bool(mask.any()) for mask in masks])
    bootstrap = Bootstrap.of([str(index // 5) for index in range(n_images)], labels, 1000)
    shared: dict[str, Any] = {"image_labels": labels, "bootstrap": bootstrap}
    for _ in range(rounds):
        taken = []
        for lesions, given, boxes in ((False, masks, None), (True, masks, None), (False, None, boxed(masks))):
            start = process_time()
            evaluate_stream(maps, given, maps[:20], Protocol(lesions=lesions), boxes=boxes, **shared)
            taken.append(process_time() - start)
        pairs = zip(NAMES, taken, strict=True)
        print(", ".join(f"{name} {part:.1f} s ({part / taken[0]:.2f})" for name, part in pairs), flush=True)


NAMES = ("without", "with lesions", "boxes alone")
if __name__ == "__main__":
    main(*map(int, [*sys.argv[1:], "400", "3"][:2]))
