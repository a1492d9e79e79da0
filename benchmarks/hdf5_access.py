"""Reading and writing embeddings in HDF5: order of the images, layout, caches, and several readers.

MiB per second of 32x32x384 float16 images, by CPU time beside wall time; from the page cache unless the file system is
named with TMPDIR.
"""

import tempfile
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, process_time

import h5py
import numpy as np
from runner import Row, arguments, report, spread

from dinodp.embeddings.cache import TokenRows

SHAPE, IMAGES, PER_READ = (32, 32, 384), 96, 12
MIB = np.prod(SHAPE) * 2 * IMAGES / 2**20
LAYOUTS = {
    "one chunk per image": {"chunks": (1, *SHAPE)},
    "one chunk per 8 images": {"chunks": (8, *SHAPE)},
    "one chunk per row of patches": {"chunks": (1, 1, *SHAPE[1:])},
    "contiguous": {},
    "one chunk per image, lzf": {"chunks": (1, *SHAPE), "compression": "lzf"},
}


def rate(calls: dict[str, Callable[[], object]], rounds: int) -> list[Row]:
    """MiB per second of each call, all of them in turn, ``rounds`` times."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            wall, cpu = perf_counter(), process_time()
            call()
            times[name].append((perf_counter() - wall, process_time() - cpu))
    return [
        {"what": name, "mib_per_s": {"wall": spread(MIB / np.array(wall)), "cpu": spread(MIB / np.array(cpu))}}
        for name, (wall, cpu) in ((name, zip(*pairs, strict=True)) for name, pairs in times.items())
    ]


def write(path: Path, tokens: np.ndarray, layout: dict[str, object], batch: int = 8, cache: int | None = None) -> None:
    with h5py.File(path, "w", **({} if cache is None else {"rdcc_nbytes": cache})) as file:
        data = file.create_dataset("tokens", tokens.shape, "float16", **layout)
        for first in range(0, IMAGES, batch):
            data[first : first + batch] = tokens[first : first + batch]


def read(rows: TokenRows, order: np.ndarray) -> None:
    for first in range(0, len(order), PER_READ):
        rows.read(order[first : first + PER_READ].tolist())


def read_with(path: Path, order: np.ndarray, readers: int) -> None:
    """Several threads, each with its own handle and share of the images: their wall time is the one that counts."""
    with ThreadPoolExecutor(readers) as pool:
        list(pool.map(lambda part: read(TokenRows(path, range(IMAGES)), part), np.split(order, readers)))


def reopen(path: Path, tokens: np.ndarray) -> None:
    """A file opened anew for every batch, as a writer without state would."""
    write(path, tokens[:0].reshape(0, *SHAPE), {"chunks": (1, *SHAPE), "maxshape": (None, *SHAPE)})
    for first in range(0, IMAGES, 8):
        with h5py.File(path, "a") as file:
            file["tokens"].resize(first + 8, axis=0)
            file["tokens"][first : first + 8] = tokens[first : first + 8]


def measure(options: Namespace) -> list[Row]:
    tokens = np.random.default_rng(0).normal(size=(IMAGES, *SHAPE)).astype(np.float16)
    order, sequential = np.random.default_rng(1).permutation(IMAGES), np.arange(IMAGES)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        calls: dict[str, Callable[[], object]] = {}
        for name, layout in LAYOUTS.items():
            path = folder / f"{name.replace(' ', '_')}.h5"
            write(path, tokens, layout)
            calls[f"write, {name}"] = lambda options=layout: write(folder / "written.h5", tokens, options)
            calls[f"read in random order, {name}"] = lambda p=path: read(TokenRows(p, range(IMAGES)), order)
        path = folder / "one_chunk_per_image.h5"
        calls["read in order, one chunk per image"] = lambda: read(TokenRows(path, range(IMAGES)), sequential)
        held = TokenRows(path, range(IMAGES), "memory")
        calls["read in random order, cache: memory"] = lambda: read(held, order)
        for readers in (2, 4):
            calls[f"read in random order, {readers} threads"] = lambda n=readers: read_with(path, order, n)
        chunks = {"chunks": (1, *SHAPE)}
        calls["write, no cache of chunks"] = lambda: write(folder / "x.h5", tokens, chunks, cache=0)
        calls["write, the file opened for every batch"] = lambda: reopen(folder / "y.h5", tokens)
        return rate(calls, options.repeats)


if __name__ == "__main__":
    options = arguments(__doc__)
    report("hdf5_access", measure(options), options)
