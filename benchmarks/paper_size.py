"""The paper's BraTS2021 protocol at its true size on synthetic embeddings: time, CPU time and peak memory by stage.

7,500 training, 39 validation and 3,715 test images of 32x32x384 float16 (9 GB) are written once, in clusters, with
anomalies planted under the masks of the test images. Then the pipeline's own jobs fit, score, evaluate and tabulate:
the paper's mixture (K = 500, 40 epochs), a coreset, an IVF-PQ index, and the whole bank on a few images. What was done
in part (fewer --epochs, fewer images of a model by --first) is brought to the whole by arithmetic and marked so. Each
stage is a process of its own; one that is done is not done again.

python benchmarks/paper_size.py FOLDER [--device cuda] [--threads 2] [--images 96] [--stages data fit-mixture ...]
                                       [--again STAGE ...] [--epochs 4] [--coreset 0.01] [--first bank=8 ivfpq=128]
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from made_data import clustered
from PIL import Image
from runner import FOLDER, Row, machine, set_threads, timed

from dinodp.datasets.manifest import image_row, manifest_digest, read_manifest, select, write_manifest
from dinodp.embeddings.writer import TokenWriter
from dinodp.evaluation.collecting import collect_costs, collect_metrics
from dinodp.evaluation.intervals import collect_intervals
from dinodp.evaluation.test_split import evaluate_scores
from dinodp.families import ModelOptions, model_options
from dinodp.families.fit_job import FitJob
from dinodp.families.stages import load_model, open_split, score_split
from dinodp.jobs.costs import measured, peak_host_mib, write_cost
from dinodp.jobs.logs import configure_logging, logger, progress
from dinodp.jobs.origin import read_result
from dinodp.options import places
from dinodp.options.protocol import Protocol
from dinodp.report.table_job import make_table
from dinodp.report.tables import TABLES
from dinodp.store import digest_of

ROOT = FOLDER.parent
PUBLISHED = ROOT / "resources/published/published.csv"
TRAIN, VALID, NORMAL, ANOMALOUS = 7500, 39, 640, 3075  # images of BraTS2021 in BMAD; 640 + 3,075 are the test images
GRID, DIM, SIDE = 32, 384, 240
SHIFT = 0.4  # length of what is added to a patch that a lesion covers, beside 1
IMAGES_PER_BATCH = 8
EPOCHS, CORESET, FIRST = 40, 0.01, {"bank": 8}
MODELS = ("mixture", "coreset", "ivfpq", "bank")
SEED = 0
PLACE = {"dataset": "brats2021", "embedding": "dinov2_vits14", "seed": SEED}
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Run:
    """Where it lies and how large it is; ``images`` of the training split, the others in proportion.

    ``first``: how many of the test images a model scores, where it does not score all, nor validation images.
    """

    folder: Path
    images: int
    epochs: int
    threads: int
    coreset: float
    first: Mapping[str, int]
    device: str

    def place(self, pattern: str, model: str = "", split: str = "") -> Path:
        """A place below the folder, as the pipeline's below its own."""
        return self.folder / places.fill(pattern, model=model, split=split, **PLACE)

    @property
    def manifest(self) -> Path:
        """The manifest of the synthetic images."""
        return self.place(places.MANIFEST)

    def counts(self) -> list[tuple[str, str, int]]:
        """Split, label and number of images."""
        share = self.images / TRAIN
        planned = [("train", "normal", TRAIN), ("valid", "normal", VALID)]
        planned += [("test", "normal", NORMAL), ("test", "anomalous", ANOMALOUS)]
        return [(split, label, max(4, round(count * share))) for split, label, count in planned]

    def options(self, model: str) -> dict[str, Any]:
        """The catalog's entry of a model."""
        models = yaml.safe_load((ROOT / "config/catalog.yaml").read_text())["models"]
        entries = {
            "mixture": {**models["dpmm_diag"], "epochs": self.epochs},
            "coreset": {**models["memory_bank_coreset"], "coreset_fraction": self.coreset},
            "ivfpq": models["memory_bank_ivfpq"],
            "bank": models["memory_bank"],
        }
        entry: dict[str, Any] = entries[model]
        return entry


class Synthetic:
    """Stands for the backbone where the writer of embeddings asks which it was."""

    name = "synthetic"

    def provenance(self) -> dict[str, str]:
        """What the files say of it."""
        return {"backbone": "none: clustered random vectors"}


def write_data(run: Run) -> Row:
    """Images of one value with masks, their manifest, and embeddings of each split."""
    if not run.manifest.is_file():
        write_images(run)
    frame = read_manifest(run.manifest)
    size = 0
    for number, split in enumerate(SPLITS):
        path = run.place(places.TOKENS, split=split)
        if not path.is_file():
            write_tokens(path, select(frame, split), manifest_digest(frame), number, run.device)
        size += path.stat().st_size
    nothing = {"seconds": 0.0, "images": 0.0, "peak_host_mib": 0.0, "peak_gpu_mib": None, "device": "cpu"}
    write_cost(run.place(places.TOKENS_COST, split="test"), nothing)  # no backbone ran
    return {"images": sum(count for *_, count in run.counts()), "mib": round(size / 2**20)}


def write_images(run: Run) -> None:
    """PNG files, an ellipse as mask of each anomalous one, five images to a subject, and their manifest."""
    folder = run.folder / "images"
    folder.mkdir(parents=True, exist_ok=True)
    rng, (y, x), rows = np.random.default_rng(0), np.indices((SIDE, SIDE)), []
    for split, label, count in run.counts():
        for index in range(count):
            path = folder / f"{split}-{label}-{index:05d}.png"
            Image.new("L", (SIDE, SIDE), 1).save(path)
            mask = path.with_suffix(".mask.png") if label == "anomalous" else None
            if mask:
                (cy, cx), (ry, rx) = rng.uniform(60, 180, 2), rng.uniform(8, 40, 2)
                Image.fromarray(np.uint8(255 * (((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1))).save(mask)
            rows.append(image_row(split, label, path, mask, f"{split}-{label}-{index // 5}", index))
    run.manifest.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(pd.DataFrame(rows), run.manifest)


def write_tokens(path: Path, frame: pd.DataFrame, manifest: str, number: int, device: str) -> None:
    """Embeddings of a split by the pipeline's writer, which goes on where it was interrupted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    backbone: Any = Synthetic()
    partial_file, made_from = path.with_name(path.name + ".partial"), {"manifest": manifest}
    writer = TokenWriter(partial_file, f"{manifest}-{number}-{SHIFT}", len(frame), backbone, {}, made_from)
    firsts = range(writer.done, len(frame), IMAGES_PER_BATCH)
    with writer:
        for first in progress(firsts, f"write {path.stem}", per_item=IMAGES_PER_BATCH):
            masks = frame["mask"].tolist()[first : first + IMAGES_PER_BATCH]
            tokens = tokens_of(masks, 10**6 * (number + 1) + first, device)
            writer.write(first, tokens, torch.ones(tokens.shape[:3], dtype=torch.bool))
    writer.finish(path)


def tokens_of(masks: list[str], seed: int, device: str) -> torch.Tensor:
    """Clustered unit vectors [image, row, col, dim]; where a mask covers a patch it is moved."""
    x = clustered(len(masks) * GRID * GRID, DIM, seed, device=device).cpu().view(len(masks), GRID, GRID, DIM)
    moves = torch.randn(len(masks), DIM, generator=torch.Generator().manual_seed(seed))
    for image, mask, move in zip(x, masks, torch.nn.functional.normalize(moves, dim=1), strict=True):
        if mask:
            covered = Image.open(mask).resize((GRID, GRID), Image.Resampling.BOX)
            image += SHIFT * torch.from_numpy(np.asarray(covered) / np.float32(255))[..., None] * move
    return torch.nn.functional.normalize(x, dim=-1)


def fit(run: Run, model: str) -> Row:
    """The pipeline's job of a fit."""
    train, valid = (str(run.place(places.TOKENS, split=split)) for split in ("train", "valid"))
    path, cost = run.place(places.MODEL, model), run.place(places.MODEL_COST, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = run.options(model)
    FitJob(str(run.manifest), train, valid, str(path), str(cost), options, None, SEED, run.device, run.threads).run()
    said = read_result(cost)
    return {"model_mib": round(said["model_mib"], 1), "active_components": said["active_components"]}


def score(run: Run, model: str, split: str) -> Row:
    """The pipeline's scoring of a split, or of its first images."""
    options: ModelOptions = model_options(run.options(model))
    manifest, fitted = read_manifest(run.manifest), run.place(places.MODEL, model)
    train = open_split(run.place(places.TOKENS, split="train"), options, None, manifest, "train", normal_only=True)
    rows = select(manifest, split)
    images = range(run.first.get(model, len(rows)))
    source = open_split(run.place(places.TOKENS, split=split), options, None, manifest, split, images=images)
    made_from = {"manifest": manifest_digest(manifest), "model": digest_of(fitted), "tokens": source.digest}
    path = run.place(places.SCORES, model, split)
    path.parent.mkdir(parents=True, exist_ok=True)
    loaded, spent = load_model(fitted, options, train, device=run.device, seed=SEED), dict[str, float]()
    chosen = rows.iloc[list(images)]
    with measured(run.device) as cost:
        wall, cpu = timed(lambda: spent.update(score_split(loaded, source, chosen, path, made_from=made_from)))
    write_cost(run.place(places.SCORES_COST, model, split), {**cost, **spent})
    of_image = {"wall_ms_per_image": 1e3 * wall / len(images), "cpu_ms_per_image": 1e3 * cpu / len(images)}
    return {"images": len(images), "all_images": len(rows), **{kind: round(ms, 3) for kind, ms in of_image.items()}}


def evaluate(run: Run, model: str) -> Row:
    """Metrics of every score under both mask rules, and those of 1,000 resamples of the subjects."""
    metrics, curves = (run.place(pattern, model) for pattern in (places.METRICS, places.CURVES))
    for path in (metrics, curves):
        path.parent.mkdir(parents=True, exist_ok=True)
    options = model_options(run.options(model))
    evaluate_scores(
        test_scores=run.place(places.SCORES, model, "test"),
        valid_scores=run.place(places.SCORES, model, "valid"),
        manifest=read_manifest(run.manifest),
        labels={**PLACE, "model": model, "seed": str(SEED), **options.labels()},
        protocol=protocol(),
        metrics_path=metrics,
        curves_path=curves,
    )
    values = read_result(metrics)["metrics"][options.scores[0]]["gt0"]
    names = ("pixel_auroc", "pixel_average_precision", "aupro_30", "image_auroc")
    return {"scores": len(options.scores), **{name: round(values[name], 4) for name in names}}


def protocol() -> Protocol:
    """The paper's."""
    return Protocol.of(yaml.safe_load((ROOT / "config/paper.yaml").read_text())["run"])


def tabulate(run: Run) -> Row:
    """Tidy metrics, intervals over subjects, costs, and every table of the pipeline."""
    models = [model for model in MODELS if run.place(places.METRICS, model).is_file()]
    files = [[run.place(kind, model) for model in models] for kind in (places.METRICS, places.CURVES)]
    metrics, costs = run.folder / places.METRICS_TABLE, run.folder / places.COSTS_TABLE
    collect_metrics(*files, metrics)
    fits, scores = (
        [run.place(kind, model, "test") for model in models] for kind in (places.MODEL_COST, places.SCORES_COST)
    )
    collect_costs([run.place(places.TOKENS_COST, split="test")], fits, scores, costs)
    intervals, differences = run.folder / places.INTERVALS, run.folder / places.DIFFERENCES
    collect_intervals(*files, "mixture", intervals, differences)
    for table in TABLES:
        made = [run.folder / places.fill(places.TABLE, table=table, extension=kind) for kind in ("csv", "md", "tex")]
        made[0].parent.mkdir(parents=True, exist_ok=True)
        make_table(table, metrics, costs, PUBLISHED, *made, protocol=protocol())
    return {"models": models, "tables": len(TABLES), "intervals": len(pd.read_csv(intervals))}


def stages(run: Run) -> dict[str, Callable[[Run], Row]]:
    """Every stage by its name, in order."""
    found: dict[str, Callable[[Run], Row]] = {"data": write_data}
    for model in MODELS:
        found[f"fit-{model}"] = partial(fit, model=model)
        for split in ("test",) if model in run.first else ("valid", "test"):
            found[f"score-{model}-{split}"] = partial(score, model=model, split=split)
        if model not in run.first:
            found[f"evaluate-{model}"] = partial(evaluate, model=model)
    return {**found, "tables": tabulate}


def do(name: str, run: Run) -> None:
    """One stage in this process; its row is written when it has ended."""
    configure_logging()
    set_threads(run.threads)
    row: Row = {"what": name, "threads": run.threads}
    wall, cpu = timed(lambda: row.update(stages(run)[name](run)))
    row |= {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "peak_host_mib": round(peak_host_mib())}
    if run.device == "cuda":
        row["peak_gpu_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    row_file(run, name).write_text(json.dumps({**row, "load": round(os.getloadavg()[0], 1)}))


def row_file(run: Run, name: str) -> Path:
    """Where the row of a stage lies."""
    return run.folder / f"rows/{name}.json"


def do_all(run: Run, names: list[str], again: list[str], given: list[str]) -> None:
    """Each stage that is not done yet, in a process of its own."""
    (run.folder / "rows").mkdir(parents=True, exist_ok=True)
    for name in names:
        if name in again or not row_file(run, name).is_file():
            logger.info("Stage %s.", name)
            subprocess.run([sys.executable, __file__, *given, "--do", name], check=True)


def whole(row: Mapping[str, Any], run: Run) -> Row | None:
    """A stage that was done in part, as if all of it had been: times in proportion. None where it was done whole.

    Of the bank that is an upper bound, as 64 images share one reading of it.
    """
    times = {}
    if row["what"] == "fit-mixture" and run.epochs < EPOCHS:
        times = {kind: round(row[kind] * EPOCHS / run.epochs) for kind in ("wall_s", "cpu_s")}
    elif row.get("images", 0) < row.get("all_images", 0):
        more = (row["all_images"] - row["images"]) / 1e3
        times = {f"{kind}_s": round(row[f"{kind}_s"] + more * row[f"{kind}_ms_per_image"]) for kind in ("wall", "cpu")}
        times["images"] = row["all_images"]
    return {**row, **times, "what": f"{row['what']}, whole", "measured": False} if times else None


def gather(run: Run) -> None:
    """Print the rows; those of the true size are written to benchmarks/results."""
    rows = [json.loads(row_file(run, name).read_text()) for name in stages(run) if row_file(run, name).is_file()]
    rows = [part for row in rows for part in (row, whole(row, run)) if part is not None]
    print(as_markdown(rows))
    if run.images == TRAIN:
        about = {"epochs": run.epochs, "coreset_fraction": run.coreset}
        content = {"machine": machine(run.device, run.threads), **about, "rows": rows}
        (FOLDER / f"results/paper_size-{run.device}.json").write_text(json.dumps(content, indent=1) + "\n")


def as_markdown(rows: list[Row]) -> str:
    """The rows as Markdown, for docs/performance.md."""
    heads = ["stage", "images", "CPU, s", "wall, s", "peak, MiB", ""]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        by = "" if row.get("measured", True) else "arithmetic"
        numbers = [f"{round(row[name]):,}" for name in ("cpu_s", "wall_s", "peak_host_mib")]
        lines.append("| " + " | ".join([row["what"], str(row.get("images", "")), *numbers, by]) + " |")
    return "\n".join(lines)


def first_of(text: str) -> tuple[str, int]:
    """A model and a number of images, as MODEL=IMAGES."""
    model, _, images = text.partition("=")
    if model not in MODELS:
        raise argparse.ArgumentTypeError(f"{model} is none of {', '.join(MODELS)}")
    return model, int(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="takes 10 GB; what is there is not made again")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--images", type=int, default=TRAIN, help="of the training split, the others in proportion")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--coreset", type=float, default=CORESET, help="share of the embeddings")
    parser.add_argument("--first", nargs="+", type=first_of, default=list(FIRST.items()), metavar="MODEL=IMAGES")
    parser.add_argument("--stages", nargs="+", help="which to do; default: all")
    parser.add_argument("--again", nargs="+", default=[], help="stages to do once more")
    parser.add_argument("--do", help=argparse.SUPPRESS)
    options = parser.parse_args()
    first = dict(options.first)
    run = Run(
        folder=options.folder.resolve(),
        images=options.images,
        epochs=options.epochs,
        threads=options.threads,
        coreset=options.coreset,
        first=first,
        device=options.device,
    )
    names = list(stages(run))
    asked = [*(options.stages or names), *options.again, *filter(None, [options.do])]
    if unknown := sorted(set(asked) - set(names)):
        parser.error(f"no stage {', '.join(unknown)}; there are {', '.join(names)}")
    if options.do:
        do(options.do, run)
        return
    configure_logging()
    names_given = ("device", "threads", "images", "epochs", "coreset")
    given = [str(run.folder), *(f"--{name}={getattr(run, name)}" for name in names_given)]
    given += ["--first", *(f"{model}={images}" for model, images in first.items())] if first else []
    do_all(run, options.stages or names, options.again, given)
    gather(run)


if __name__ == "__main__":
    main()
