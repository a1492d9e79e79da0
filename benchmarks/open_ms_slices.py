"""Slices of the open MS volumes as PNG, for the data set `open_ms` of config/baselines.yaml.

    python benchmarks/open_ms_slices.py VOLUMES data/open_ms_png

VOLUMES holds patient07, patient19 and patient26 with flair.nii.gz and lesions.nii.gz (Lesjak et al., 2017, CC BY). The
split was fixed before any result: patient 19, who has the largest lesions, to test; slices of 07 and 26 to learn from,
every fifth block of five of them to validate. Hardly a slice of theirs is free of lesions. So every pixel within 9 of a
lesion is painted black: a patch of 8.6 pixels that touches a lesion is then all black, and `background: leave_out`
leaves it out.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from scipy import ndimage

LEARNT, TESTED = ("07", "26"), "19"
SIDE, LEAST_BRAIN, WINDOW, BLOCK = 240, 6000, (0.5, 99.5), 5  # pixels, pixels, percentiles of the brain, slices
VALID_EVERY, MARGIN = 5, 9  # blocks, pixels


def slices(folder: Path) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(index, 8-bit slice, mask) of axial slices with enough brain, upright and padded to a square."""
    volume, lesions = (
        np.asanyarray(nibabel.as_closest_canonical(nibabel.load(folder / name)).dataobj)
        for name in ("flair.nii.gz", "lesions.nii.gz")
    )
    brain = volume != 0
    low, high = np.percentile(volume[brain], WINDOW)
    grey = np.where(brain, np.clip((volume - low) / (high - low), 1 / 255, 1) * 255, 0).round().astype(np.uint8)
    for index in range(volume.shape[2]):
        if brain[:, :, index].sum() > LEAST_BRAIN:
            yield index, padded(grey[:, :, index]), padded((lesions[:, :, index] > 0).astype(np.uint8) * 255)


def padded(plane: np.ndarray) -> np.ndarray:
    """Upright, in the middle of a black square."""
    plane = np.rot90(plane)
    before = [(SIDE - length) // 2 for length in plane.shape]
    after = [SIDE - length - first for length, first in zip(plane.shape, before, strict=True)]
    return np.pad(plane, list(zip(before, after, strict=True)))


def save(path: Path, plane: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(plane).save(path)


def main() -> None:
    """Write the data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    for patient in LEARNT:
        for number, (index, grey, mask) in enumerate(slices(options.volumes / f"patient{patient}")):
            touched = ndimage.binary_dilation(mask > 0, np.ones((2 * MARGIN + 1, 2 * MARGIN + 1)))
            split = "valid" if number // BLOCK % VALID_EVERY == VALID_EVERY - 1 else "train"
            save(options.out / split / "good/img" / f"pat{patient}_{index:03d}.png", np.where(touched, 0, grey))
    for index, grey, mask in slices(options.volumes / f"patient{TESTED}"):
        folder = options.out / "test" / ("Ungood" if mask.any() else "good")
        for kind, plane in (("img", grey), ("label", mask)):
            save(folder / kind / f"pat{TESTED}_{index:03d}.png", plane)


if __name__ == "__main__":
    main()
