"""One fit by one and by two processes, in turns: seconds of the fit itself, without the start of the processes.

Wall time, since that is what processes share; so only an idle machine tells.
"""

import sys
import tempfile
from argparse import Namespace
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from made_data import embeddings_file
from runner import Row, arguments, report, spread

from dinodp.families.fit_job import FitJob
from dinodp.jobs.files import read_json

COMPONENTS, IMAGES = 500, {"train": 192, "valid": 8}
WAYS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 2)}


def fit_job(folder: Path, device: str) -> FitJob:
    """A fit of two epochs to clustered embeddings of a few images."""
    rows = [("test", "normal", "test.png")]
    for split, count in IMAGES.items():
        embeddings_file(folder / f"{split}.h5", count)
        rows += [(split, "normal", f"{split}{index}.png") for index in range(count)]
    manifest = pd.DataFrame(rows, columns=["split", "label", "image"])
    manifest = manifest.assign(mask="", subject="", slice="", height=448, width=448, image_sha256="0")
    manifest.to_csv(folder / "manifest.csv", index=False)
    options = {"family": "dpmm", "components": COMPONENTS, "epochs": 2, "scores": ["cosine"]}
    paths = {kind: str(folder / f"{kind}.h5") for kind in ("train", "valid", "model")}
    paths |= {"manifest": str(folder / "manifest.csv"), "cost": str(folder / "cost.json")}
    return FitJob(**paths, options=options, grid=None, seed=0, device=device, threads=1)


def in_a_process_of_its_own(job: FitJob, processes: int) -> None:
    """A job keeps its GPU until its process ends."""
    child = get_context("spawn").Process(target=job.run, args=(processes,))
    child.start()
    child.join()
    if child.exitcode:
        sys.exit("A fit failed.")


def measure(options: Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        job = fit_job(Path(name), options.device)
        enough = options.device == "cpu" or torch.cuda.device_count() > 1
        seconds: dict[str, list[float]] = {way: [] for way, (n, _) in WAYS.items() if n == 1 or enough}
        for _ in range(options.repeats):
            for way in seconds:
                processes, threads = WAYS[way]
                in_a_process_of_its_own(replace(job, threads=threads), processes)
                seconds[way].append(read_json(Path(job.cost))["seconds"])
    base = np.array(seconds["1 process, 1 thread"])
    return [
        {
            "what": f"fit by {way}",
            "components": COMPONENTS,
            "images": IMAGES,
            "s": {"wall": spread(np.array(values))},
            "times_as_fast": spread(base / np.array(values)),
        }
        for way, values in seconds.items()
    ]


if __name__ == "__main__":
    options = arguments(__doc__)
    report("fit_processes", measure(options), options)
