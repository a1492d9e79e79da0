"""Milliseconds per image, mixture and memory bank, against the number of remembered embeddings; peak memory.

The forward pass of ViT-S/14 at 448 pixels and the scoring of its 1,024 patches, batch 1 and batched. Sizes of the bank
that fit are measured; the bank's time is a matrix product, so larger ones are the time per embedding times their number
and say so (`measured: false`). Published: 58 ms (mixture) and 984 ms (memory bank).
"""

import tempfile
from argparse import Namespace
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
from backbone import backbone
from made_data import bank_of, slices
from runner import Row, arguments, median, report
from score_mixture import fitted

from dinodp.images import read_image
from dinodp.jobs.costs import peak_host_mib

D, PATCHES = 384, 1024
MEASURED = {"cpu": (10**3, 10**4, 10**5), "cuda": (10**3, 10**4, 10**5, 10**6, 10**7, 10**7.5)}
EXTRAPOLATED = (10**5.5, 10**6, 10**6.5, 10**7, 10**7.5)
BATCHES = {"cpu": (1, 4), "cuda": (1, 16)}


def interleaved(calls: dict[str, object], repeats: int) -> dict[str, dict[str, float]]:
    """Median wall and CPU milliseconds of each call, all of them in turn."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            wall, cpu = perf_counter(), process_time()
            call()  # type: ignore[operator]
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:  # the first is a warm-up
                times[name].append((perf_counter() - wall, process_time() - cpu))
    return {
        name: dict(zip(("wall", "cpu"), (1e3 * median(part) for part in np.array(pairs).T), strict=True))
        for name, pairs in times.items()
    }


def measure(options: Namespace) -> list[Row]:
    device = options.device
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        model = backbone("vits14", Path(place), device)
        (path,) = slices(Path(place), 1)
        image = model.prepare(read_image(path))
        mixture = fitted(D, device)
        for batch in BATCHES[device]:
            pixels = torch.stack([image] * batch).to(device)
            tokens = torch.nn.functional.normalize(model.embed(pixels).float().flatten(0, 2), dim=-1)
            calls = {"backbone": lambda p=pixels: model.embed(p), "mixture": lambda t=tokens: mixture.distances(t)}
            for size in (round(size) for size in MEASURED[device]):  # one bank in memory at a time
                bank = bank_of(size, D, device)
                found = interleaved(calls | {"bank": lambda t=tokens, b=bank: b.distances(t)}, options.repeats)
                rows.append(row_of(found, batch, size))
                del bank
            rows += extrapolated(rows[-1])
    memory = {"what": "peak memory", "host_mib": round(peak_host_mib())}
    if device == "cuda":
        memory["gpu_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return [*rows, memory]


def row_of(found: dict[str, dict[str, float]], batch: int, size: int) -> Row:
    """Backbone plus scoring, per image."""
    row: Row = {"what": "ms per image", "batch": batch, "bank": size, "measured": True}
    for kind in ("wall", "cpu"):
        backbone, mixture, bank = (found[name][kind] / batch for name in ("backbone", "mixture", "bank"))
        times = {"backbone": backbone, "mixture": backbone + mixture, "bank": backbone + bank}
        row[kind] = {name: round(value, 3) for name, value in times.items()}
    return row


def extrapolated(largest: Row) -> list[Row]:
    """Rows of larger banks: the search takes time in proportion to their size."""
    rows = []
    for size in (round(size) for size in EXTRAPOLATED if size > largest["bank"]):
        row = {**largest, "bank": size, "measured": False}
        for kind in ("wall", "cpu"):
            backbone, total = largest[kind]["backbone"], largest[kind]["bank"]
            row[kind] = {**largest[kind], "bank": round(backbone + (total - backbone) * size / largest["bank"], 3)}
        rows.append(row)
    return rows


if __name__ == "__main__":
    options = arguments(__doc__)
    report("end_to_end", measure(options), options)
