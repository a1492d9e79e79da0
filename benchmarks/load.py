"""Load: many small images through prepare and embed, and a volume of many slices; time, memory and open files.

``python benchmarks/load.py [--images 10000] [--slices 512]``; run by hand, not part of the tests (docs/reliability.md).
"""

import argparse
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from dinodp.backbones import embedding_options
from dinodp.datasets.manifest import read_manifest, select
from dinodp.datasets.sources import prepare_dataset
from dinodp.datasets.volumes import open_volume
from dinodp.embeddings import embed_split

SIDE = 32  # pixels of a small image
OPTIONS = {"backbone": "classical", "resolution": 56}


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Print time, growth of the peak of memory, and the most files that were open at once."""
    before, start, most, ended = _peak_mib(), time.perf_counter(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            most[0] = max(most[0], sum(1 for _ in Path("/proc/self/fd").iterdir()))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield
    ended.set()
    watcher.join()
    seconds, grown = time.perf_counter() - start, _peak_mib() - before
    print(f"| {what} | {seconds:.1f} | {grown:.0f} | {most[0]} |", flush=True)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_images(root: Path, count: int) -> None:
    """Small grey images in the layout of an image folder, one in a hundred anomalous."""
    draw = np.random.default_rng(0)
    for number in range(count):
        kind = ("train/good", "train/good", "valid/good", "test/good")[number % 4]
        if number % 100 == 0:
            kind = "test/bad"
        path = root / kind / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (SIDE, SIDE), dtype=np.uint8)).save(path)


def many_images(folder: Path, count: int) -> None:
    """Prepare and embed."""
    write_images(folder / "images", count)
    entry = {"source": "image_folder", "root": str(folder / "images"), "masks": False}
    with measured(f"prepare {count} images of {SIDE} x {SIDE}"):
        manifest = prepare_dataset("many", entry, folder / "data")
    options = embedding_options(OPTIONS)
    rows = select(read_manifest(manifest), "train")
    backbone = options.load("cpu")
    with measured(f"embed {len(rows)} of them, classical descriptor"):
        embed_split(rows, backbone, folder / "train.h5", options.decisive(), batch_size=16, workers=2)


def long_volume(folder: Path, slices: int) -> None:
    """Read a volume and cut it into slices."""
    path = folder / "long.nii.gz"
    voxels = np.random.default_rng(0).integers(0, 4000, (256, 256, slices), dtype=np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    with measured(f"read a volume of 256 x 256 x {slices}"):
        stack = open_volume(path).stack(2)
    assert stack.shape == (slices, 256, 256)


def main() -> None:
    """Both, as rows of a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--slices", type=int, default=512)
    arguments = parser.parse_args()
    print("| what | seconds | MiB more | open files |\n|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        many_images(Path(folder), arguments.images)
        long_volume(Path(folder), arguments.slices)


if __name__ == "__main__":
    main()
