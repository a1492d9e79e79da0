"""Where a model fails: its metrics by size and contrast of the lesion and by level of the slice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dinodp import store
from dinodp.datasets.manifest import select
from dinodp.evaluation.bias import HealthyShares
from dinodp.evaluation.intervals import anomalous_subjects, interval
from dinodp.evaluation.metadata import PREFIX, bins_of, groups
from dinodp.evaluation.test_split import (
    MaskFiles,
    has_pixel_labels,
    image_sizes,
    scores_made_from,
    subjects_of,
)
from dinodp.jobs.logs import logger
from dinodp.jobs.origin import name_of, read_table, require_made_from, table_origin, write_table
from dinodp.metrics import Bootstrap, evaluate_stream
from dinodp.metrics.anomaly_maps import anomaly_map
from dinodp.metrics.thresholds import calibrated_thresholds, full_resolution_thresholds
from dinodp.options.protocol import Protocol

PROPERTIES = {
    "lesion_share": ("small", "medium", "large"),
    "contrast": ("low", "medium", "high"),
    "level": ("first third", "middle third", "last third"),
}
N_RESAMPLES = 500
COLUMNS = [
    "property", "stratum", "low", "high", "images", "subjects", "metric", "value", "interval_low", "interval_high"
]  # fmt: skip


def stratify(
    manifest: pd.DataFrame,
    cases_path: Path,
    test_scores: Path,
    valid_scores: Path,
    score: str,
    protocol: Protocol,
    labels: Mapping[str, Any],
    path: Path,
    bins: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Write metrics of the first score in each stratum, with intervals over subjects; without masks only those below.

    Of each group of the metadata, and of all images beside them, also which share of the pixels of healthy images
    exceeds the thresholds (`bias`). ``bins``: where numbers of a column are cut. Raises InputError for cases or scores
    that are not of this manifest.
    """
    made_from = scores_made_from(manifest, test_scores, valid_scores)
    origin, cases = table_origin(cases_path), _read_cases(cases_path)
    require_made_from(cases_path, origin.made_from, "manifest", made_from["manifest"], "this manifest")
    made_from["cases"] = origin.content_sha256
    test, valid = select(manifest, "test"), select(manifest, "valid")
    normal = valid[valid["label"] == "normal"]
    maps = store.read_maps(test_scores, protocol.mask_rule)[score]
    valid_maps = store.read_maps(valid_scores, protocol.mask_rule)[score][normal.index]
    bins_of(bins or {}, metadata_columns(cases), cases_path)
    grouped = list(metadata_strata(cases, bins or {}))
    rows: list[dict[str, Any]] = []
    for place in [*strata(cases), *grouped] if has_pixel_labels(test) else []:
        logger.info("Stratum %s: %s, %d images.", place["property"], place["stratum"], len(place["rows"]))
        rows += _stratum_rows(place, test, maps, normal, valid_maps, replace(protocol, lesions=False))
    if grouped:
        rows += _bias_rows(grouped, test, maps, normal, valid_maps, protocol)
    frame = pd.DataFrame(rows, columns=COLUMNS)
    for name, value in reversed(list(labels.items())):
        frame.insert(0, name, value)
    write_table(path, frame.to_csv(index=False, float_format="%.6g"), __name__, made_from)


def strata(cases: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Thirds of the anomalous images by size and contrast, of all images by level; ``rows`` are places in the table.

    Thirds hold equally many images, but for ties; levels are cut at 1/3 and 2/3. A property that is unknown or has one
    value gives none.
    """
    anomalous = (cases["label"] == "anomalous").to_numpy()
    for name, strata_names in PROPERTIES.items():
        values = cases[name].to_numpy(dtype=float)
        known = np.isfinite(values) & (anomalous if name != "level" else True)
        if not known.any() or values[known].min() == values[known].max():
            continue
        cuts = [1 / 3, 2 / 3] if name == "level" else np.quantile(values[known], [1 / 3, 2 / 3])
        third = np.digitize(values, cuts)
        for index, stratum in enumerate(strata_names):
            chosen = np.flatnonzero(known & (third == index))
            if len(chosen):
                low, high = values[chosen].min(), values[chosen].max()
                yield {"property": name, "stratum": stratum, "low": low, "high": high, "rows": chosen}


def _read_cases(path: Path) -> pd.DataFrame:
    """Words of the metadata are not taken for numbers, nor for missing values."""
    columns = read_table(path, nrows=0).columns
    words = {name: str for name in columns if str(name).startswith(PREFIX)}
    table = read_table(path, dtype=words)
    return table.fillna(dict.fromkeys(words, ""))


def metadata_columns(cases: pd.DataFrame) -> list[str]:
    """The columns of the metadata, as the user's table calls them."""
    return [str(name).removeprefix(PREFIX) for name in cases.columns if str(name).startswith(PREFIX)]


def metadata_strata(cases: pd.DataFrame, bins: Mapping[str, Sequence[float]]) -> Iterator[dict[str, Any]]:
    """The groups of each column of the metadata; a column with one value gives none."""
    for name in metadata_columns(cases):
        found = list(groups(cases[PREFIX + name].tolist(), bins.get(name)))
        for stratum, low, high, rows in found if len(found) > 1 else []:
            yield {"property": name, "stratum": stratum, "low": low, "high": high, "rows": rows}


def _bias_rows(
    grouped: Sequence[Mapping[str, Any]],
    test: pd.DataFrame,
    maps: npt.NDArray[np.float32],
    normal: pd.DataFrame,
    valid_maps: npt.NDArray[np.float32],
    protocol: Protocol,
) -> list[dict[str, Any]]:
    """The share of the pixels of healthy test images above the thresholds, of all and in each group."""
    sizes = image_sizes(normal, protocol.mask_size)
    known = calibrated_thresholds(valid_maps) | full_resolution_thresholds(valid_maps, sizes, protocol.smoothing_sigma)
    shares = HealthyShares({name: known[name] for name in protocol.thresholds}, min(N_RESAMPLES, protocol.resamples))
    healthy = np.flatnonzero((test["label"] == "normal").to_numpy())
    subjects = subjects_of(test)
    for row, size in zip(healthy, np.asarray(image_sizes(test, protocol.mask_size))[healthy], strict=True):
        shares.add(anomaly_map(maps[row], (int(size[0]), int(size[1])), protocol.smoothing_sigma), subjects[row])
    every = {"property": "all", "stratum": "all", "low": np.nan, "high": np.nan, "rows": np.arange(len(test))}
    found = []
    for place in [every, *grouped]:
        chosen = np.flatnonzero(np.isin(healthy, place["rows"]))
        shared = {key: place[key] for key in ("property", "stratum", "low", "high")}
        shared |= {"images": len(chosen), "subjects": len({shares.subjects[row] for row in chosen})}
        for name, value, (low, high) in shares.found(chosen):
            found.append({**shared, "metric": name, "value": value, "interval_low": low, "interval_high": high})
    return found


def _stratum_rows(
    place: Mapping[str, Any],
    test: pd.DataFrame,
    maps: npt.NDArray[np.float32],
    normal: pd.DataFrame,
    valid_maps: npt.NDArray[np.float32],
    protocol: Protocol,
) -> list[dict[str, Any]]:
    """Pixel metrics of the stratum's images; image AUROC of its anomalous images against all normal ones."""
    labels, rows = (test["label"] == "anomalous").to_numpy(), place["rows"]
    chosen = test.iloc[rows]
    result = evaluate_stream(
        maps[rows],
        MaskFiles(chosen, protocol.mask_size),
        valid_maps,
        protocol,
        image_labels=labels[rows],
        bootstrap=_bootstrap(chosen, labels[rows], protocol),
        validation_sizes=image_sizes(normal, protocol.mask_size),
    )
    against = np.union1d(rows[labels[rows]], np.flatnonzero(~labels))
    images = evaluate_stream(
        maps[against],
        None,
        valid_maps,
        protocol,
        image_labels=labels[against],
        bootstrap=_bootstrap(test.iloc[against], labels[against], protocol),
    )
    n_subjects = anomalous_subjects(subjects_of(chosen), labels[rows])
    values = {**result.values, "image_auroc": images.values.get("image_auroc")}
    replicates = {**result.replicates, "image_auroc": images.replicates.get("image_auroc")}
    shared = {key: place[key] for key in ("property", "stratum", "low", "high")}
    shared |= {"images": len(rows), "subjects": len(set(subjects_of(chosen)))}
    wanted = ("prevalence", "pixel_auroc", "pixel_average_precision", *protocol.dice_metrics, "image_auroc")
    return [
        {**shared, "metric": name, "value": value, **_interval(value, replicates.get(name), n_subjects)}
        for name in wanted
        if (value := values.get(name)) is not None
    ]


def _bootstrap(frame: pd.DataFrame, labels: npt.NDArray[np.bool_], protocol: Protocol) -> Bootstrap | None:
    n_resamples = min(N_RESAMPLES, protocol.resamples)
    return Bootstrap.of(subjects_of(frame), labels, n_resamples) if n_resamples else None


def _interval(
    value: float, replicates: npt.NDArray[np.float64] | None, n_subjects: int
) -> dict[str, float | None]:
    low, high = (None, None) if replicates is None else interval(value, replicates, n_subjects)
    return {"interval_low": low, "interval_high": high}


def collect_strata(files: Sequence[Path], path: Path) -> None:
    """All strata of a run in one table."""
    frames = [read_table(file) for file in files]
    text = pd.concat(frames, ignore_index=True).to_csv(index=False, float_format="%.6g")
    write_table(path, text, __name__, {name_of(file): table_origin(file).content_sha256 for file in files})
