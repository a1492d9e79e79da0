"""One fit by one and by two processes, in turns: seconds of the fit itself, without the start of the processes.

python benchmarks/fit_processes.py [--components 500] [--images 48] [--rounds 3]
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from dinodp import store
from dinodp.files import read_json
from dinodp.parallel.fit_job import FitJob

DIM, GRID = 384, 32
WAYS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 2)}


def write_inputs(folder: Path, n_images: int) -> None:
    """Unit vectors around 50 centres, as embeddings of ``n_images`` training and 4 validation images."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(50, DIM))
    rows = [("test", "normal", "test.png")]
    for split, count in (("train", n_images), ("valid", 4)):
        noise = generator.normal(size=(count, GRID, GRID, DIM))
        tokens = centres[generator.integers(50, size=(count, GRID, GRID))] + 0.5 * noise
        with store.writing(folder / f"{split}.h5", "embeddings", {}) as file:
            file["tokens"] = tokens.astype(np.float16)
        rows += [(split, "normal", f"{split}{index}.png") for index in range(count)]
    manifest = pd.DataFrame(rows, columns=["split", "label", "image"])
    manifest = manifest.assign(mask="", subject="", slice="", height=448, width=448, image_sha256="0")
    manifest.to_csv(folder / "manifest.csv", index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--components", type=int, default=500)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, arguments.images)
        options = {"family": "dpmm", "components": arguments.components, "epochs": 2, "scores": ["cosine"]}
        files = {kind: str(folder / f"{kind}.h5") for kind in ("train", "valid", "model")}
        paths = {**files, "manifest": str(folder / "manifest.csv"), "cost": str(folder / "cost.json")}
        job = FitJob(**paths, options=options, grid=None, seed=0, device="cpu", threads=1)
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(arguments.rounds):
            for way, (processes, threads) in WAYS.items():
                replace(job, threads=threads).run(processes)
                seconds[way].append(read_json(folder / "cost.json")["seconds"])
    base = median(seconds["1 process, 1 thread"])
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    for way, values in seconds.items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{way}: {median(values):.2f} s ({spread}), {base / median(values):.2f} times as fast")


if __name__ == "__main__":
    main()
