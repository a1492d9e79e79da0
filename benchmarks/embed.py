"""Embedding a split, from PNG files to HDF5, against the bare forward pass of the same model on the same batches.

Reach: 0.97 of the bare forward pass on a CPU, 0.95 on a GPU: decoding, resizing and writing are overlapped.
"""

import tempfile
from argparse import Namespace
from pathlib import Path

import pandas as pd
import torch
from backbone import WEIGHTS, backbone, backbone_names
from made_data import slices
from runner import Row, alternate, arguments, report, timed

from dinodp.embeddings import embed_split
from dinodp.images import read_image
from dinodp.jobs.origin import sha256

SIZES = {"cpu": (8, 48), "cuda": (64, 1024)}  # batch, images
SMALL = (8, 16)


def embed_against_forward(name: str, options: Namespace, dtype: str = "float32") -> Row:
    device, workers = options.device, options.threads
    batch, n_images = SMALL if options.small else SIZES[device]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = backbone(name, folder, device, dtype)
        paths = slices(folder, n_images)
        frame = pd.DataFrame({"image": map(str, paths), "image_sha256": [sha256(path.read_bytes()) for path in paths]})
        pixels = torch.stack([model.prepare(read_image(path)) for path in paths[:batch]]).to(device)

        def ours() -> None:
            embed_split(frame, model, folder / "out.h5", {}, batch_size=batch, workers=workers)

        def forward() -> None:
            for _ in range(n_images // batch):
                model.embed(pixels)

        row = alternate(ours, forward, options.repeats)
        prepare = timed(lambda: model.prepare(read_image(paths[0])))
    share = [float(f"{1 / value:.4g}") for value in reversed(row["ratio"]["wall"])]
    share_cpu = [float(f"{1 / value:.4g}") for value in reversed(row["ratio"]["cpu"])]
    return {
        "what": "embedding a split / bare forward pass",
        "backbone": name,
        "weights": WEIGHTS[name],
        "dtype": dtype,
        "batch": batch,
        "images": n_images,
        "decode_threads": workers,
        "share_of_bare_throughput": {"wall": share, "cpu": share_cpu},
        "ms_per_image": {kind: round(1e3 * value / n_images, 1) for kind, value in row["ours_s"].items()},
        "prepare_ms_per_image": round(1e3 * prepare[1], 1),
        **row,
    }


def forward_by_dtype(name: str, options: Namespace, dtype: str) -> Row:
    """The bare forward pass in ``dtype`` against float32."""
    batch, _ = SIZES[options.device]
    with tempfile.TemporaryDirectory() as place:
        models = [backbone(name, Path(place), options.device, kind) for kind in (dtype, "float32")]
        (path,) = slices(Path(place), 1)
        pixels = torch.stack([models[0].prepare(read_image(path))] * batch).to(options.device)
        row = alternate(lambda: models[0].embed(pixels), lambda: models[1].embed(pixels), options.repeats)
    about = {"backbone": name, "weights": WEIGHTS[name], "batch": batch}
    return {"what": f"forward pass in {dtype} / in float32", **about, **row}


def measure(options: Namespace) -> list[Row]:
    rows = [embed_against_forward(name, options) for name in backbone_names(options.small)]
    if options.small:
        return rows
    rows += [forward_by_dtype("vits14", options, dtype) for dtype in ("bfloat16", "float16")]
    if options.device == "cuda":
        rows += [embed_against_forward("vits14", options, dtype) for dtype in ("bfloat16", "float16")]
    return rows


if __name__ == "__main__":
    options = arguments(__doc__)
    report("embed", measure(options), options)
