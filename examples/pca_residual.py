"""Anomaly maps of a method that has nothing to do with dinodp: what a PCA of healthy pixel patches cannot explain.

    python examples/pca_residual.py --train data/set/train/good --images data/set/test data/set/valid --out maps/

Only NumPy, Pillow and scikit-learn. One map per image, float32 .npy in the size of the image, below ``--out`` under the
folder and name of the image: docs/referee.md shows how such maps are judged.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from sklearn.decomposition import PCA

SIDE, STEP, N_TRAIN = 7, 2, 20_000  # pixels of a patch, between patches, patches that are learnt from
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


def pictures(folder: Path) -> list[Path]:
    """The images below a folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def patches(path: Path) -> np.ndarray:
    """Grey values of the patches around every second pixel: [row, column, 49], in [0, 1]."""
    grey = np.asarray(Image.open(path).convert("L"), dtype=np.float32) / 255
    padded = np.pad(grey, SIDE // 2, mode="reflect")
    return sliding_window_view(padded, (SIDE, SIDE))[::STEP, ::STEP].reshape(*grey[::STEP, ::STEP].shape, -1)


def fit(folder: Path, components: int) -> PCA:
    """The PCA of patches drawn from healthy images."""
    every = np.concatenate([patches(path).reshape(-1, SIDE**2) for path in pictures(folder)])
    drawn = np.random.default_rng(0).choice(len(every), min(N_TRAIN, len(every)), replace=False)
    return PCA(components, random_state=0).fit(every[drawn])


def anomaly_map(model: PCA, path: Path) -> np.ndarray:
    """Length of what the PCA leaves of each patch, at the size of the image, float32 [H, W]."""
    found = patches(path)
    flat = found.reshape(-1, SIDE**2)
    residual = flat - model.inverse_transform(model.transform(flat))
    small = np.linalg.norm(residual, axis=1).reshape(found.shape[:2]).astype(np.float32)
    with Image.open(path) as image:
        return np.asarray(Image.fromarray(small).resize(image.size, Image.Resampling.BILINEAR))


def main(arguments: list[str] | None = None) -> None:
    """Fit, and write the maps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--images", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--components", type=int, default=6)
    options = parser.parse_args(arguments)
    model = fit(options.train, options.components)
    for folder in options.images:
        for path in pictures(folder):
            place = options.out / folder.name / path.relative_to(folder).with_suffix(".npy")
            place.parent.mkdir(parents=True, exist_ok=True)
            np.save(place, anomaly_map(model, path))


if __name__ == "__main__":
    main()
