"""One data set and embedding on the page: its cases, and per model the maps, thresholds and curves."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dinodp import store
from dinodp.datasets.manifest import read_manifest, select
from dinodp.evaluation.test_split import has_pixel_labels, require_one_job
from dinodp.images import read_image, resize_mask
from dinodp.jobs.origin import read_result, require_unchanged
from dinodp.metrics.anomaly_maps import Map
from dinodp.options import places
from dinodp.options.protocol import Protocol
from dinodp.report.case_choice import choose_by_dice, choose_by_score, image_dice, lesion_mask
from dinodp.report.figures.style import score_label
from dinodp.report.pictures import figure, map_to_show, picture, quantised, runs, shown_size
from dinodp.report.run_files import ModelFiles, ReportFiles

N_LEVELS = 96  # steps of the threshold slider
FIGURES_LEFT_OUT = ("anomaly_maps", "roc_pr_curves")  # the page shows both itself
NAMED = ("FPR 10 %", "FPR 5 %", "FPR 1 %")
Floats = npt.NDArray[np.float64]
Curves = Mapping[str, npt.NDArray[np.floating]]


def galleries(files: ReportFiles, protocol: Protocol) -> list[dict[str, Any]]:
    """One gallery per (data set, embedding), in the order of ``files.models``."""
    groups = groupby(files.models, key=lambda model: model.place)
    return [gallery(list(models), files.manifests[place[0]], files.figures, protocol) for place, models in groups]


def gallery(
    models: Sequence[ModelFiles], manifest_path: Path, figures: Sequence[Path], protocol: Protocol
) -> dict[str, Any]:
    """What the page shows of one data set and embedding: every model's cases, each with the map of all models."""
    full = read_manifest(manifest_path)
    for model in models:
        require_one_job(full, model.test, model.valid, model.metrics, model.curves)
    manifest, valid = select(full, "test"), select(full, "valid")
    normal = (valid["label"] == "normal").to_numpy()
    loaded = [_load(model, manifest, normal, protocol) for model in models]
    rows = sorted({row for model in loaded for group in model["groups"].values() for row in group})
    cases = [_case(manifest.iloc[row], protocol.mask_rule) for row in rows]
    dataset, embedding = models[0].place
    own = _figures_of(models[0].place, figures)
    return {
        "key": f"{dataset}-{embedding}",
        "dataset": dataset,
        "embedding": embedding,
        "has_masks": has_pixel_labels(manifest),
        "cases": cases,
        "models": [_shown(model, rows, cases, protocol.smoothing_sigma) for model in loaded],
        "figures": [{"name": _title(name), "address": figure(path)} for name, path in own.items()],
    }


def _figures_of(place: tuple[str, str], figures: Sequence[Path]) -> dict[str, Path]:
    """The figures of a data set and embedding, by name, but those that the page shows itself."""
    named = [(places.parse(places.FIGURE, path), path) for path in figures]
    own = {names["figure"]: path for names, path in named if (names["dataset"], names["embedding"]) == place}
    return {name: path for name, path in own.items() if name not in FIGURES_LEFT_OUT}


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize().replace("Pca", "PCA")


def _load(
    files: ModelFiles, manifest: pd.DataFrame, normal: npt.NDArray[np.bool_], protocol: Protocol
) -> dict[str, Any]:
    """Scores of one model by its first score, and the cases chosen for it."""
    metrics = read_result(files.metrics)
    score = str(metrics["options"]["scores"][0])
    rule = protocol.mask_rule
    maps, valid = store.read_maps(files.test, rule)[score], store.read_maps(files.valid, rule)[score][normal]
    values = metrics["metrics"][score][rule]
    thresholds = {text: float(values[name]) for name, text in zip(protocol.thresholds, NAMED, strict=True)}
    image_scores = store.read_image_scores(files.test, rule)[score].astype(np.float64)
    dice, share = image_dice(manifest, maps, thresholds[NAMED[1]], protocol)
    by_dice = has_pixel_labels(manifest) and not np.isnan(dice).all()
    groups = choose_by_dice(manifest, dice, share, image_scores) if by_dice else choose_by_score(manifest, image_scores)
    return {
        "name": files.model,
        "seed": metrics["seed"],
        "score": score,
        "maps": maps,
        "groups": groups,
        "dice": dice,
        "image_scores": image_scores,
        "thresholds": thresholds,
        "prevalence": values.get("prevalence"),
        "curves": store.read_curves(files.curves, score, rule),
        "valid": valid,
    }


def _case(row: pd.Series, mask_rule: str) -> dict[str, Any]:
    """Image and mask of one case, at the size shown."""
    require_unchanged(row["image"], row["image_sha256"])
    if row["mask"]:
        require_unchanged(row["mask"], row["mask_sha256"])
    image, mask = read_image(row["image"]), lesion_mask(row, mask_rule)
    height, width = shown_size(*image.shape[:2])
    return {
        "name": Path(row["image"]).stem,
        "label": row["label"],
        "subject": str(row["subject"]),
        "height": height,
        "width": width,
        "full_size": f"{image.shape[1]} × {image.shape[0]}",
        "lesion": _short(float(mask.mean())),
        "image": picture(image, (height, width)),
        "mask": runs(resize_mask(mask.astype(np.uint8), (height, width)) > 0),
    }


def _shown(
    model: Mapping[str, Any], rows: Sequence[int], cases: Sequence[Mapping[str, Any]], smoothing_sigma: float
) -> dict[str, Any]:
    """One model as the page needs it: maps of all cases, groups, and what every threshold of the slider means."""
    maps = model["maps"]
    low, high = float(maps.min()), float(maps.max())
    chosen = [row for group in model["groups"].values() for row in group]
    group_of = {row: name for name, group in model["groups"].items() for row in group}
    shown = [
        map_to_show(maps[row], (case["height"], case["width"]), smoothing_sigma)
        for row, case in zip(rows, cases, strict=True)
    ]
    levels = threshold_levels(maps, model["valid"], list(model["thresholds"].values()), model["curves"])
    return {
        "name": model["name"],
        "seed": model["seed"],
        "score": model["score"],
        "score_label": score_label(model["score"]),
        "low": low,
        "high": high,
        "colours_from": _short(float(np.quantile(maps, 0.01))),
        "colours_to": _short(float(np.quantile(maps, 0.999))),
        "levels": levels,
        "named": {
            name: next(i for i, level in enumerate(levels) if level["threshold"] >= value)
            for name, value in model["thresholds"].items()
        },
        "ranks": [chosen.index(row) if row in chosen else len(chosen) for row in rows],
        "groups": [group_of.get(row, "") for row in rows],
        "dice": [None if np.isnan(model["dice"][row]) else _short(float(model["dice"][row])) for row in rows],
        "image_scores": [_short(float(model["image_scores"][row])) for row in rows],
        "maps": [quantised(values, low, high) for values in shown],
        "curves": {name: values for name, values in model["curves"].items() if name != "threshold"},
        "prevalence": model["prevalence"],
    }


def threshold_levels(
    test: Map, normal_validation: Map, calibrated: Sequence[float], curves: Curves
) -> list[dict[str, float | None]]:
    """Thresholds of the slider, rising, with what each does to the whole test split.

    They are quantiles of the test patches, evenly spaced in the logarithm of the share above, the calibrated ones and
    the maximum, which nothing exceeds.
    ``flagged``: share of the test patches above; ``fpr_valid``: of the normal validation patches; with masks also
    ``recall``, ``precision`` (None where nothing is above), ``fpr`` and ``dice`` of the test pixels.
    """
    shares = np.geomspace(0.5, 1 / test.size, N_LEVELS)
    thresholds = np.unique([*np.quantile(test, 1 - shares), *calibrated, float(test.max())])
    columns = {
        "threshold": thresholds,
        "flagged": _share_above(test, thresholds),
        "fpr_valid": _share_above(normal_validation, thresholds),
        **_at_thresholds(thresholds, curves),
    }
    return [{name: _level(name, float(column[i])) for name, column in columns.items()} for i in range(len(thresholds))]


def _level(name: str, value: float) -> float | None:
    return value if name == "threshold" else None if np.isnan(value) else _short(value)


def _share_above(maps: Map, thresholds: Floats) -> Floats:
    ordered = np.sort(maps, axis=None)
    above = len(ordered) - np.searchsorted(ordered, thresholds, side="right")
    return np.asarray(above / len(ordered))


def _at_thresholds(thresholds: Floats, curves: Curves) -> dict[str, Floats]:
    """Recall, precision (NaN where nothing is above), FPR and Dice of the test pixels above each threshold.

    Recall and FPR are read from the curves at the threshold, the others follow from them. Nothing without curves.
    """
    if "threshold" not in curves:
        return {}
    rising = {name: np.asarray(curves[name], dtype=np.float64)[::-1] for name in ("threshold", "recall", "fpr")}
    recall, fpr = (np.interp(thresholds, rising["threshold"], rising[name]) for name in ("recall", "fpr"))
    anomalous = float(curves["precision"][-1])  # of all pixels
    hits, alarms = recall * anomalous, fpr * (1 - anomalous)
    precision = np.divide(hits, hits + alarms, out=np.full_like(hits, np.nan), where=hits + alarms > 0)
    return {"recall": recall, "precision": precision, "fpr": fpr, "dice": 2 * hits / (anomalous + hits + alarms)}


def _short(value: float) -> float:
    """Five significant digits: enough to read, little to carry."""
    return float(f"{value:.5g}")
