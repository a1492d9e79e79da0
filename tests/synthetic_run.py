"""A small finished run of two models, written with the library's own writers, for the tests of the report."""

from pathlib import Path

import numpy as np
import pandas as pd
from made_files import write_csv, write_scores
from PIL import Image

from dinodp import store
from dinodp.datasets.manifest import image_row, make_manifest, read_manifest, select, write_manifest
from dinodp.evaluation.test_split import evaluate_scores
from dinodp.jobs.origin import name_of, origin_of, read_result
from dinodp.metrics.anomaly_maps import anomaly_map
from dinodp.options import places
from dinodp.options.protocol import Protocol
from dinodp.report.figures.style import new_figure, save_figure
from dinodp.report.run_files import ModelFiles, ReportFiles

DATASET, EMBEDDING = "brats2021", "dinov2_vits14"  # names with published values
MODELS = {"memory_bank": "memory_bank", "dpmm_diag": "dpmm"}
GRID = (10, 8)
PUBLISHED = Path(__file__).parents[1] / "resources/published/published.csv"
CONFIG = {
    "run": {
        "title": "Synthetic <run>",
        "note": "Noise & discs; they say nothing.",
        "datasets": [DATASET],
        "embeddings": [EMBEDDING],
        "models": list(MODELS),
        "seeds": [0, 1],
        "mask_rules": ["gt0"],
        "smoothing_sigma": 0,
        "published_embedding": EMBEDDING,
        "baseline": "memory_bank",
    },
    "datasets": {DATASET: {"source": "image_folder", "accept": ["image_size"]}},
    "embeddings": {EMBEDDING: {"backbone": "none"}},
    "models": {name: {"family": family, "scores": ["cosine"]} for name, family in MODELS.items()},
}
# metric: values of both seeds of the mixture, interval; the published values are 96.21, 43.43, 31.64 and 45.87
MIXTURE = {
    "pixel_auroc": ([0.955, 0.957], (0.95, 0.96)),
    "pixel_aupr_trapezoid": ([0.40, 0.42], (0.35, 0.47)),
    "dice_fpr10": ([0.20, 0.20], (0.18, 0.22)),
    "dice_fpr01": ([0.50, 0.52], (0.49, 0.53)),
}


def write_run(folder: Path, masks: bool = True, smoothing_sigma: float = 0.0) -> ReportFiles:
    """Images, manifest, scores, metrics, curves, figure and tables of a run below ``folder``."""
    manifest = folder / f"data/{DATASET}/manifest.csv"
    write_manifest(make_manifest(_images(folder, masks)), manifest)
    models = [_model(folder, manifest, name, seed, smoothing_sigma) for seed, name in enumerate(MODELS)]
    tables = {name: folder / f"{name}.csv" for name in ("metrics", "costs", "intervals", "differences", "checksums")}
    made_from = {name_of(files.metrics): origin_of(read_result(files.metrics)).content_sha256 for files in models}
    columns = ["split", "label", "image", "image_sha256", "mask_sha256"]
    for name, frame in {**_tables(), "checksums": pd.DataFrame(columns=columns)}.items():
        write_csv(frame, tables[name], made_from)
    figure = folder / f"results/figures/{DATASET}/{EMBEDDING}/component_maps.png"
    save_figure(new_figure(40), figure, figure.with_suffix(".pdf"))
    return ReportFiles(
        metrics=tables["metrics"],
        costs=tables["costs"],
        published=PUBLISHED,
        manifests={DATASET: manifest},
        checksums={DATASET: tables["checksums"]},
        models=models,
        figures=[figure],
        intervals=tables["intervals"],
        differences=tables["differences"],
        strata=_strata(folder),
        alignment=[_alignment(folder)],
        alignment_figures=[figure],
    )


def _strata(folder: Path) -> Path:
    place = {"dataset": DATASET, "embedding": EMBEDDING, "seed": 0, "property": "lesion_share", "images": 4}
    rows = [
        {**place, "model": model, "stratum": stratum, "low": 0.001, "high": 0.02, "subjects": 2, "metric": metric,
         "value": value, "interval_low": value - 0.05, "interval_high": value + 0.05}
        for model in MODELS
        for stratum, value in (("small", 0.4), ("large", 0.8))
        for metric in ("prevalence", "pixel_auroc", "dice_fpr05")
    ]  # fmt: skip
    return write_csv(pd.DataFrame(rows), folder / "strata.csv")


def _alignment(folder: Path) -> Path:
    path = folder / f"results/alignment/{DATASET}/{EMBEDDING}.csv"
    path.parent.mkdir(parents=True)
    rows = [
        {"model": model, "images": "normal", "measure": "explained by place", "value": value, "low": 0.1, "high": 0.6}
        for model, value in (("dpmm_diag", 0.5), ("dpmm_diag_raw", 0.25))
    ]
    return write_csv(pd.DataFrame(rows), path)


def _images(folder: Path, masks: bool) -> list[dict[str, object]]:
    """Noise; anomalous images hold a bright disc. One is larger than the page shows, one is coloured."""
    rng = np.random.default_rng(5)
    plan = [("train", "normal", 2), ("valid", "normal", 4), ("test", "normal", 5), ("test", "anomalous", 10)]
    rows = []
    for split, label, count in plan:
        for index in range(count):
            height, width = (500, 400) if index == 2 and label == "anomalous" else (100, 80)
            y, x = np.mgrid[:height, :width]
            disc = (x / width - 0.6) ** 2 + (y / height - 0.4) ** 2 < (0.05 + 0.02 * index) ** 2
            image = np.uint8(np.clip(rng.normal(90, 10, (height, width)) + 60 * disc * (label == "anomalous"), 0, 255))
            path = folder / f"{split}-{label}-{index}.png"
            Image.fromarray(np.stack([image, image, image // 2], -1) if index == 1 else image).save(path)
            mask = path.with_name(path.stem + "-mask.png") if label == "anomalous" and masks else None
            if mask:
                Image.fromarray(np.uint8(255 * disc)).save(mask)
            rows.append(image_row(split, label, path, mask, f"{label}{index // 2}", index))
    return rows


def _model(folder: Path, manifest: Path, name: str, seed: int, smoothing_sigma: float) -> ModelFiles:
    """Scores that rise with the disc's share of a patch, evaluated as the pipeline does."""
    frame, rng = read_manifest(manifest), np.random.default_rng(seed)
    where = {"dataset": DATASET, "embedding": EMBEDDING, "model": name, "seed": 0}
    files = {split: folder / places.fill(places.SCORES, split=split, **where) for split in ("test", "valid")}
    files |= {
        kind: folder / places.fill(pattern, **where)
        for kind, pattern in (("metrics", places.METRICS), ("curves", places.CURVES))
    }
    for split in ("test", "valid"):
        rows = select(frame, split)
        maps = rng.gamma(2, 0.02, (len(rows), *GRID)).astype(np.float32)
        for index in np.flatnonzero((rows["label"] == "anomalous").to_numpy()):
            maps[index, 3:5, 4:6] += np.float32(0.1 + 0.02 * (index % 4))
        write_scores(files[split], {"cosine": maps}, frame)
    evaluate_scores(
        test_scores=files["test"],
        valid_scores=files["valid"],
        manifest=frame,
        labels={
            "dataset": DATASET,
            "embedding": EMBEDDING,
            "model": name,
            "seed": "0",
            "options": CONFIG["models"][name],
        },
        protocol=Protocol(smoothing_sigma=smoothing_sigma, resamples=0),
        metrics_path=files["metrics"],
        curves_path=files["curves"],
    )
    return ModelFiles(**files)


def _tables() -> dict[str, pd.DataFrame]:
    place = {"dataset": DATASET, "embedding": EMBEDDING, "score": "cosine", "mask_rule": "gt0"}
    first = {**place, "variant": False, "primary": True}
    rows = [
        {**first, "model": "dpmm_diag", "family": "dpmm", "normalised": "yes", "seed": seed, "metric": name, "value": v}
        for name, (values, _) in MIXTURE.items()
        for seed, v in enumerate(values)
    ]
    bank = {**first, "model": "memory_bank", "family": "memory_bank", "normalised": "yes", "seed": 0}
    rows += [{**bank, "metric": name, "value": value} for name, value in (("pixel_auroc", 0.97), ("dice_fpr10", 0.3))]
    intervals = [
        {**place, "model": "dpmm_diag", "metric": name, "seeds": 2, "value": np.mean(values), "low": low, "high": high}
        for name, (values, (low, high)) in MIXTURE.items()
    ]
    minus = {**place, "model": "dpmm_diag", "minus": "memory_bank"}
    differences = [
        {**minus, "metric": "pixel_auroc", "value": -0.014, "low": -0.03, "high": 0.002},
        {**minus, "metric": "dice_fpr10", "value": -0.10, "low": -0.12, "high": -0.08},
    ]
    cost = {"fit_seconds": 2.5, "backbone_ms_per_image": 10.0, "scoring_ms_per_image": 3.0, "peak_host_mib": 500.0}
    cost |= {"peak_gpu_mib": np.nan, "model_mib": 1.5, "active_components": 20.0, "device": "cpu, 1 threads"}
    costs = [{"dataset": DATASET, "embedding": EMBEDDING, "model": name, "seed": 0, **cost} for name in MODELS]
    frames = {"metrics": rows, "intervals": intervals, "differences": differences, "costs": costs}
    return {name: pd.DataFrame(content) for name, content in frames.items()}


def map_of(files: ReportFiles, model: int, row: int, size: tuple[int, int]) -> np.ndarray:
    """The anomaly map of a test image, upsampled from the scores file."""
    return anomaly_map(store.read_maps(files.models[model].test)["cosine"][row], size)
