"""Where a model fails: its metrics by size and contrast of the lesion and by level of the slice."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dinodp import store
from dinodp.datasets.manifest import select
from dinodp.evaluation.intervals import anomalous_subjects, interval
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
) -> None:
    """Write metrics of the first score in each stratum, with intervals over subjects; no row without masks.

    Raises InputError for cases or scores that are not of this manifest.
    """
    made_from = scores_made_from(manifest, test_scores, valid_scores)
    origin, cases = table_origin(cases_path), read_table(cases_path)
    require_made_from(cases_path, origin.made_from, "manifest", made_from["manifest"], "this manifest")
    made_from["cases"] = origin.content_sha256
    test, valid = select(manifest, "test"), select(manifest, "valid")
    rows: list[dict[str, Any]] = []
    if has_pixel_labels(test):
        normal = valid[valid["label"] == "normal"]
        maps = store.read_maps(test_scores, protocol.mask_rule)[score]
        valid_maps = store.read_maps(valid_scores, protocol.mask_rule)[score][normal.index]
        for place in strata(cases):
            logger.info("Stratum %s: %s, %d images.", place["property"], place["stratum"], len(place["rows"]))
            rows += _stratum_rows(place, test, maps, normal, valid_maps, protocol)
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
