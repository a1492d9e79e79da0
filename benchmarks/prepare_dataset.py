"""Prepare and verify a data set of BMAD's brain size: 11,298 images of 240x240 with masks, made in a temporary folder.

Prints seconds and peak memory of each step: python benchmarks/prepare_dataset.py
"""

import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image

from dinodp.datasets.manifest import read_manifest
from dinodp.datasets.sources import prepare_dataset
from dinodp.datasets.verification import verify_dataset
from dinodp.jobs.costs import peak_host_mib

COUNTS = {("train", "good"): 7500, ("valid", "good"): 39, ("valid", "Ungood"): 44}
COUNTS |= {("test", "good"): 640, ("test", "Ungood"): 3075}


def make(root: Path, share: float) -> None:
    """Random smooth RGBA slices as BMAD's are, and masks of four values."""
    generator = np.random.default_rng(0)
    for (split, label), count in COUNTS.items():
        folder = root / split / label
        images, masks = (folder, None) if split == "train" else (folder / "img", folder / "label")
        for path in (images, masks):
            if path:
                path.mkdir(parents=True)
        for index in range(max(1, int(count * share))):
            name = f"{split[:2]}{label[0]}{index // 18:04d}_{60 + index % 18}.png"
            small = Image.fromarray(generator.integers(0, 256, (40, 40, 4), dtype=np.uint8), "RGBA")
            small.resize((240, 240), Image.Resampling.BICUBIC).save(images / name)
            if masks:
                mask = np.zeros((240, 240), dtype=np.uint8)
                if label == "Ungood":
                    mask[80:120, 90:150], mask[90:100, 100:110] = 122, 255
                Image.fromarray(mask).save(masks / name)


def report(step: str, start: float) -> None:
    peak = peak_host_mib()
    print(f"{step}: {perf_counter() - start:.1f} s, peak {peak:.0f} MiB", flush=True)


def main() -> None:
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        start = perf_counter()
        make(root / "brain", share)
        report("make the images (not part of the measurement)", start)
        start = perf_counter()
        manifest = prepare_dataset("brain", {"source": "bmad", "root": str(root / "brain")}, root / "out")
        report("prepare", start)
        start = perf_counter()
        result, _ = verify_dataset(read_manifest(manifest), {"size": [240, 240]}, threads=2)
        report("verify", start)
        print(f"images: {sum(sum(labels.values()) for labels in result['counts'].values())}")
        print(f"deviations: {result['deviations'] or 'none'}")


if __name__ == "__main__":
    main()
