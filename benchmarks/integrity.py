"""What the digests cost: each stage with them against the same stage without, in turn, on files of the paper's shapes.

Without: nothing is hashed, neither what is written nor what is read. Reach: at most 3 % of a stage's time. Where others
use the machine that is the CPU time of the main thread: other threads read and hash ahead, and write and hash behind.
"""

import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import thread_time
from unittest.mock import patch

import numpy as np
import pandas as pd
from backbone import backbone
from made_data import embeddings_file, slices
from PIL import Image
from runner import Row, alternate, arguments, report, spread

from dinodp import store
from dinodp.backbones import load_backbone
from dinodp.datasets.manifest import image_row, make_manifest, manifest_digest, read_manifest, select, write_manifest
from dinodp.embeddings import EmbeddingReader, embed_split
from dinodp.evaluation.test_split import evaluate_scores, require_scores_of
from dinodp.families import model_options
from dinodp.families.stages import fit_model, load_model, score_split
from dinodp.options.protocol import Protocol

SIZES = {"embed": 8, "fit": 48, "score": 48, "evaluate": 200}  # images
SMALL = {"embed": 4, "fit": 8, "score": 8, "evaluate": 12}
BACKBONES = {"embed, ViT-S/14": "vits14", "embed, classical": "classical"}
OPTIONS = {"family": "dpmm", "components": 500, "epochs": 3, "images_per_batch": 12}
SCORES = ("cosine", "euclidean", "mahalanobis", "log_likelihood")
GRID, SIDE = 32, 240
READERS = ("dinodp.embeddings.computing.require_unchanged", "dinodp.evaluation.test_split.require_unchanged")


class AnyDigest(bytes):
    """Equal to every other digest."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = bytes.__hash__

    def __ne__(self, other: object) -> bool:
        return False


class AnyText(str):
    """Equal to every other digest in hexadecimal digits."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__

    def __ne__(self, other: object) -> bool:
        return False


@contextmanager
def unchecked() -> Iterator[None]:
    """Nothing is hashed in the block."""
    none: dict[str, Callable[..., object]] = {
        "dinodp.store.image_digest": lambda *_: AnyDigest(store.DIGEST_BYTES),
        "dinodp.store.bytes_digest": lambda *_: AnyText("0" * 64),
        "dinodp.store._large_digest": lambda *_: AnyText("0" * 64),
        **dict.fromkeys(READERS, lambda *_: None),
    }
    with ExitStack() as stack:
        for name, call in none.items():
            stack.enter_context(patch(name, call))
        yield


def compared(what: str, n_images: int, stage: Callable[[], object], repeats: int) -> Row:
    """A stage with digests against the same without."""

    seconds: dict[str, list[float]] = {"with": [], "without": []}

    def clocked(name: str) -> None:
        start = thread_time()
        stage()
        seconds[name].append(thread_time() - start)

    def without() -> None:
        with unchecked():
            clocked("without")

    row = alternate(lambda: clocked("with"), without, repeats)
    stage()  # what the next stage reads has digests
    main = spread(np.array(seconds["with"][1:]) / np.array(seconds["without"][1:]))  # the first is a warm-up
    more = {"all threads": row["ratio"]["cpu"], "main thread": main}
    percent = {name: [round(100 * (value - 1), 2) for value in ratios] for name, ratios in more.items()}
    return {"what": what, "images": n_images, "percent_more_cpu": percent, **row}


def images(folder: Path, count: int, split: str, label: str) -> list[dict[str, object]]:
    """Rows of a manifest; anomalous images have a disc as their mask."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[:SIDE, :SIDE]
    rows = []
    for index, path in enumerate(slices(folder, count, SIDE)):
        mask = None
        if label == "anomalous":
            mask = path.with_name(f"{path.stem}_mask.png")
            disc = (x - 60 - index % 100) ** 2 + (y - 120) ** 2 < 400
            Image.fromarray(np.uint8(255 * disc)).save(mask)
        rows.append(image_row(split, label, path, mask, f"s{index // 20}", index))
    return rows


def manifest_of(folder: Path, count: int) -> pd.DataFrame:
    plan = (("train", "normal"), ("valid", "normal"), ("test", "anomalous"))
    rows = [row for split, label in plan for row in images(folder / split, count, split, label)]
    write_manifest(make_manifest(rows), folder / "manifest.csv")
    return read_manifest(folder / "manifest.csv")


def embed(folder: Path, count: int, options: Namespace) -> list[Row]:
    paths = slices(folder, count)
    rows = make_manifest([image_row("train", "normal", path) for path in paths])
    found = []
    for what, name in BACKBONES.items():
        model = load_backbone("classical") if name == "classical" else backbone(name, folder, options.device)

        def stage(model: object = model) -> None:
            embed_split(rows, model, folder / "out.h5", {}, batch_size=4, workers=options.threads)  # type: ignore[arg-type]

        found.append(compared(what, count, stage, options.repeats))
    return found


def fit_and_score(folder: Path, sizes: dict[str, int], options: Namespace) -> list[Row]:
    model_entry, path = model_options(OPTIONS), folder / "model.h5"
    train = embeddings_file(folder / "train.h5", sizes["fit"])
    valid = embeddings_file(folder / "valid.h5", max(2, sizes["fit"] // 12), seed=1)

    def fit() -> None:
        fit_model(path, model_entry, EmbeddingReader(train), EmbeddingReader(valid), seed=0, device=options.device)

    def score() -> None:
        model = load_model(path, model_entry, EmbeddingReader(train), device=options.device)
        source = EmbeddingReader(train, rows=range(sizes["score"]))
        score_split(model, source, pd.DataFrame(index=range(source.n_images)), folder / "scores.h5")

    rows = [compared("fit, mixture of 500", sizes["fit"], fit, options.repeats)]
    return [*rows, compared("score, mixture of 500", sizes["score"], score, options.repeats)]


def evaluate(folder: Path, count: int, options: Namespace) -> Row:
    manifest, random = manifest_of(folder / "data", count), np.random.default_rng(0)
    config = {"scores": list(SCORES)}
    made_from = {"model": store.digest_of(folder / "model.h5"), "tokens": "0"}
    paths = {split: folder / f"{split}-scores.h5" for split in ("test", "valid")}
    for split, path in paths.items():
        n_images = len(select(manifest, split))
        maps = {name: random.gamma(2, 1, (n_images, GRID, GRID)).astype(np.float32) for name in SCORES}
        scores = {name: values.max((1, 2)) for name, values in maps.items()}
        store.write_maps(path, config, maps, scores, {**made_from, "manifest": manifest_digest(manifest)})

    def stage() -> None:
        require_scores_of(folder / "model.h5", *paths.values())
        evaluate_scores(
            test_scores=paths["test"],
            valid_scores=paths["valid"],
            manifest=read_manifest(folder / "data/manifest.csv"),
            labels={"dataset": "d"},
            protocol=Protocol(mask_rules=("gt0", "eq255")),
            metrics_path=folder / "metrics.json",
            curves_path=folder / "curves.h5",
        )

    return compared("evaluate, four scores, two mask rules", count, stage, options.repeats)


def measure(options: Namespace) -> list[Row]:
    sizes = SMALL if options.small else SIZES
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = fit_and_score(folder, sizes, options)
        rows.append(evaluate(folder, sizes["evaluate"], options))
        (folder / "embed").mkdir()
        return [*embed(folder / "embed", sizes["embed"], options), *rows]


if __name__ == "__main__":
    options = arguments(__doc__)
    report("integrity", measure(options), options)
