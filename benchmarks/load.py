"""Load: many small images, a volume of many slices, many ``predict`` at once, a folder of many results.

``python benchmarks/load.py [--images 10000] [--slices 512] [--predicts 50] [--results DIR --files 20000]`` prints time,
memory and open files; run by hand, not part of the tests (docs/reliability.md). ``--results`` is the folder of a
finished run, of which copies under other names of its data set are verified.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from dinodp.backbones import embedding_options
from dinodp.datasets.manifest import SPLITS, read_manifest, select
from dinodp.datasets.sources import prepare_dataset
from dinodp.datasets.volumes import open_volume
from dinodp.embeddings import embed_split
from dinodp.evaluation.verifying import verify

SIDE = 32  # pixels of a small image
OPTIONS = {"backbone": "classical", "resolution": 56}


@contextmanager
def measured(what: str, memory: Callable[[], float] | None = None) -> Iterator[None]:
    """Print time, growth of the peak of memory (or the most that ``memory`` gave), and the most files open at once."""
    before, start, most, ended = _peak_mib(), time.perf_counter(), [0, 0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            most[0] = max(most[0], sum(1 for _ in Path("/proc/self/fd").iterdir()))
            most[1] = max(most[1], memory() if memory else 0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield
    ended.set()
    watcher.join()
    seconds, grown = time.perf_counter() - start, most[1] if memory else _peak_mib() - before
    print(f"| {what} | {seconds:.1f} | {grown:.0f} | {most[0]} |", flush=True)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _children_mib() -> float:
    """Memory of this process's children now, with shared pages counted once (PSS)."""
    total = 0
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            try:
                rollup = Path(f"/proc/{child}/smaps_rollup").read_text()
            except OSError:  # it has just ended
                continue
            total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024


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
    frame, backbone = read_manifest(manifest), options.load("cpu")
    with measured(f"embed {len(frame)} images, classical descriptor"):
        for split in SPLITS:
            rows = select(frame, split)
            embed_split(rows, backbone, folder / f"{split}.h5", options.decisive(), batch_size=16, workers=2)


def long_volume(folder: Path, slices: int) -> None:
    """Read a volume and cut it into slices."""
    path = folder / "long.nii.gz"
    voxels = np.random.default_rng(0).integers(0, 4000, (256, 256, slices), dtype=np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    with measured(f"read a volume of 256 x 256 x {slices}"):
        stack = open_volume(path).stack(2)
    assert stack.shape == (slices, 256, 256)


def many_predicts(folder: Path, count: int) -> None:
    """Fit a model on images, then predict with it in ``count`` processes at once, each into a folder of its own."""
    write_discs(folder / "healthy", 8), write_discs(folder / "new", 2)
    dinodp = [sys.executable, "-m", "dinodp.cli"]
    options = ["--backbone", "classical", "--resolution", "112", "--method", "eb_mixture", "components=8"]
    subprocess.run([*dinodp, "fit", folder / "healthy", "--out", folder / "m.h5", *options], check=True)
    with measured(f"{count} predict at once, memory of all together", _children_mib):
        command = [*dinodp, "predict", folder / "new", "--model", folder / "m.h5", "--out"]
        started = [subprocess.Popen([*command, folder / f"out-{number}"]) for number in range(count)]
        failed = sum(process.wait() != 0 for process in started)
    maps = {number: (folder / f"out-{number}/scans.csv").read_bytes() for number in range(count)}
    assert not failed
    assert len(set(maps.values())) == 1


def write_discs(root: Path, count: int) -> None:
    """Grey discs with noise, which have the contrast that a model asks for."""
    draw, (y, x) = np.random.default_rng(1), np.mgrid[:112, :112]
    root.mkdir()
    for number in range(count):
        disc = np.where((x - 56) ** 2 + (y - 56) ** 2 < 40**2, 140, 10) + draw.integers(0, 60, (112, 112))
        Image.fromarray(disc.astype(np.uint8)).save(root / f"{number}.png")


def many_results(folder: Path, results: Path, count: int) -> None:
    """Verify a folder of results of ``count`` files: copies of a run's files, of a data set of another name each."""
    kinds = [kind for kind in ("metrics", "curves", "strata", "scores") if (results / kind).is_dir()]
    each = sum(1 for kind in kinds for path in (results / kind).rglob("*") if path.is_file())
    for copy in range(-(-count // each)):
        for kind in kinds:
            (dataset,) = (results / kind).iterdir()
            shutil.copytree(dataset, folder / "results" / kind / f"{dataset.name}{copy}")
    with measured(f"verify {(copy + 1) * each} files"):
        found = verify(folder / "results")
    assert not any(file.problem for file in found)


def main() -> None:
    """All, as rows of a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--slices", type=int, default=512)
    parser.add_argument("--predicts", type=int, default=50)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--files", type=int, default=20_000)
    arguments = parser.parse_args()
    print("| what | seconds | MiB more | open files |\n|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        many_images(Path(folder), arguments.images)
        long_volume(Path(folder), arguments.slices)
        many_predicts(Path(folder), arguments.predicts)
        if arguments.results:
            many_results(Path(folder), arguments.results, arguments.files)


if __name__ == "__main__":
    main()
