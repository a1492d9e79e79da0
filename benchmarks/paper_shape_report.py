"""Metrics, failure analysis and report of a run of BraTS2021's size: 3,715 images of 240x240, two models, random maps.

Both mask rules, 1,000 resamples of subjects. Prints seconds and peak memory of each stage, and the size of the page:
python benchmarks/paper_shape_report.py [share of the images]
"""

import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import pandas as pd
from PIL import Image

from dinodp import store
from dinodp.datasets.manifest import image_row, read_manifest, select, write_manifest
from dinodp.evaluation.case_properties import describe_cases
from dinodp.evaluation.intervals import collect_intervals
from dinodp.evaluation.strata import collect_strata, stratify
from dinodp.evaluation.test_split import evaluate_scores
from dinodp.images import image_score
from dinodp.jobs.costs import peak_host_mib
from dinodp.options import places
from dinodp.options.protocol import Protocol
from dinodp.report.page import write_report
from dinodp.report.run_files import ModelFiles, ReportFiles

SPLITS = (("train", "normal", 2), ("valid", "normal", 39), ("test", "normal", 640), ("test", "anomalous", 3075))
PUBLISHED = Path(__file__).parents[1] / "resources/published/published.csv"
PLACE = {"dataset": "brats2021", "embedding": "dinov2_vits14"}
RUN = {
    "title": "Paper shape", "note": "Random maps.", "datasets": ["brats2021"], "embeddings": ["dinov2_vits14"],
    "models": ["memory_bank", "dpmm_diag"], "seeds": [0], "mask_rules": ["gt0", "eq255"], "smoothing_sigma": 0,
    "image_score_fraction": 0.01, "bootstrap_resamples": 1000,
    "published_embedding": "dinov2_vits14", "tolerance": 1.0, "baseline": "memory_bank",
}  # fmt: skip
CONFIG = {
    "run": RUN, "datasets": {"brats2021": {}}, "embeddings": {"dinov2_vits14": {"backbone": "none"}}, "models": {}
}  # fmt: skip


def write_images(folder: Path, share: float) -> Path:
    """Noise images, an ellipse as mask of each anomalous one, and their manifest."""
    rng, (y, x) = np.random.default_rng(0), np.indices((240, 240))
    rows = []
    for split, label, count in SPLITS:
        for index in range(max(2, int(count * share))):
            path = folder / f"{split}-{label}-{index}.png"
            Image.fromarray(rng.integers(0, 256, (240, 240), dtype=np.uint8)).save(path)
            mask = path.with_suffix(".mask.png") if label == "anomalous" else None
            if mask:
                (cy, cx), (ry, rx) = rng.uniform(60, 180, 2), rng.uniform(8, 40, 2)
                inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
                Image.fromarray(np.uint8(255 * inside)).save(mask)
            rows.append(image_row(split, label, path, mask, f"{label}{index // 5}", index))
    write_manifest(pd.DataFrame(rows), folder / "manifest.csv")
    return folder / "manifest.csv"


def report_cost(stage: str, start: tuple[float, float]) -> None:
    """Print the seconds since ``start``, those of the processor among them, and the peak memory so far."""
    peak = peak_host_mib()
    passed, worked = (now - then for now, then in zip(clocks(), start, strict=True))
    print(f"{stage}: {passed:.1f} s, of the processor {worked:.1f} s, peak {peak:.0f} MiB", flush=True)


def clocks() -> tuple[float, float]:
    """Time that passes, and time that this process works."""
    return perf_counter(), process_time()


def write_model(folder: Path, manifest: Path, name: str, seed: int) -> ModelFiles:
    """Random scores of one model, evaluated."""
    frame, rng = read_manifest(manifest), np.random.default_rng(seed)
    where = {**PLACE, "model": name, "seed": 0}
    test, valid = (folder / places.fill(places.SCORES, split=split, **where) for split in ("test", "valid"))
    metrics, curves = (folder / places.fill(pattern, **where) for pattern in (places.METRICS, places.CURVES))
    for split, path in (("test", test), ("valid", valid)):
        maps = rng.gamma(2, 1, (len(select(frame, split)), 32, 32)).astype(np.float32)
        store.write_maps(path, {}, {"cosine": maps}, {"cosine": image_score(maps)})
    labels = {**PLACE, "model": name, "seed": "0", "options": {"family": "dpmm", "scores": ["cosine"]}}
    start = clocks()
    evaluate_scores(
        test_scores=test, valid_scores=valid, manifest=frame, labels=labels, protocol=Protocol.of(RUN),
        metrics_path=metrics, curves_path=curves,
    )  # fmt: skip
    report_cost(f"evaluate {name}", start)
    return ModelFiles(test, valid, metrics, curves)


def write_tables(folder: Path) -> tuple[Path, Path]:
    """One row of metrics and of costs per model."""
    base = {**PLACE, "seed": 0, "device": "cpu", "score": "cosine", "mask_rule": "gt0", "normalised": "yes"}
    cost = dict.fromkeys(
        ("fit_seconds", "backbone_ms_per_image", "scoring_ms_per_image", "peak_host_mib", "peak_gpu_mib", "model_mib",
         "active_components"), 1.0
    )  # fmt: skip
    base |= {"family": "dpmm", "variant": False, "primary": True, "metric": "pixel_auroc", "value": 0.5, **cost}
    rows = [{**base, "model": name} for name in RUN["models"]]
    for name in ("metrics", "costs"):
        pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    return folder / "metrics.csv", folder / "costs.csv"


def write_strata(folder: Path, manifest: Path, models: list[ModelFiles]) -> Path:
    """Properties of the cases and the strata of every model."""
    frame, start = read_manifest(manifest), clocks()
    describe_cases(select(frame, "test"), "gt0", folder / "cases.csv")
    report_cost("describe cases", start)
    cases, parts = pd.read_csv(folder / "cases.csv"), []
    for model in models:
        start = clocks()
        labels = {**PLACE, "model": model.model, "seed": 0}
        parts.append(folder / f"{model.model}-strata.csv")
        stratify(frame, cases, model.test, model.valid, "cosine", Protocol.of(RUN), labels, parts[-1])
        report_cost(f"stratify {model.model}", start)
    collect_strata(parts, folder / "strata.csv")
    return folder / "strata.csv"


def main() -> None:
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        manifest = write_images(folder, share)
        models = [write_model(folder, manifest, name, seed) for seed, name in enumerate(RUN["models"])]
        start = clocks()
        curves, metrics = [model.curves for model in models], [model.metrics for model in models]
        tables = folder / "intervals.csv", folder / "differences.csv"
        collect_intervals(metrics, curves, RUN["baseline"], *tables)
        report_cost("collect intervals", start)
        strata = write_strata(folder, manifest, models)
        manifests = {"brats2021": manifest}
        files = ReportFiles(*write_tables(folder), PUBLISHED, manifests, {}, models, [], *tables, strata=strata)
        start, page = clocks(), folder / "report.html"
        write_report(page, files, CONFIG, "snakemake", "unknown")
        report_cost("report", start)
        print(f"page {page.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
