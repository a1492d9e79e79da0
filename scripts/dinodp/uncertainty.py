"""Intervals of a run's metrics, and of the difference between two models, from the resamples that every job wrote."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from dinodp import store
from dinodp.files import read_json, write_text

LEVEL = (2.5, 97.5)  # percentiles of a 95 % interval
Floats = npt.NDArray[np.float64]
Place = tuple[str, str, str, str, str]  # dataset, embedding, score, mask rule, metric
INTERVAL_COLUMNS = ["dataset", "embedding", "model", "score", "mask_rule", "metric", "seeds", "value", "low", "high"]
DIFFERENCE_COLUMNS = [
    "dataset", "embedding", "model", "minus", "score", "mask_rule", "metric", "value", "low", "high"
]  # fmt: skip


@dataclass(frozen=True)
class Resampled:
    """One metric of one model: its values over seeds [seed], and over resamples, averaged over seeds [resample]."""

    values: Floats
    replicates: Floats


def collect_intervals(
    metrics: Sequence[Path], curves: Sequence[Path], baseline: str, intervals: Path, differences: Path
) -> None:
    """Write 95 % percentile intervals of every metric, and of every model minus the ``baseline`` model.

    ``metrics`` and ``curves`` are the files of the same jobs in the same order. Both tables hold the mean over seeds;
    the interval is over subjects. A difference uses the same resamples for both models, each with its first score.
    """
    models = _read(metrics, curves)
    rows = [row for name, places in models.items() for row in _interval_rows(name, places)]
    write_text(intervals, pd.DataFrame(rows, columns=INTERVAL_COLUMNS).to_csv(index=False))
    others = [name for name in models if name != baseline]
    rows = [row for name in others for row in _difference_rows(name, models[name], baseline, models.get(baseline, {}))]
    write_text(differences, pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS).to_csv(index=False))


def _read(metrics: Sequence[Path], curves: Sequence[Path]) -> dict[str, dict[Place, Resampled]]:
    """By model and place: values of all seeds, resamples averaged over them."""
    found: dict[tuple[str, Place], list[tuple[float, Floats]]] = {}
    for metrics_path, curves_path in zip(metrics, curves, strict=True):
        content = read_json(metrics_path)
        with store.reading(curves_path, "curves") as file:
            for score, rules in content["metrics"].items():
                for rule, values in rules.items():
                    for metric, replicates in file.get(f"replicates/{score}/{rule}", {}).items():
                        place = (content["dataset"], content["embedding"], score, rule, metric)
                        item = (float(values[metric]), replicates[()])
                        found.setdefault((content["model"], place), []).append(item)
    models: dict[str, dict[Place, Resampled]] = {}
    for (model, place), items in found.items():
        values = np.array([value for value, _ in items])
        models.setdefault(model, {})[place] = Resampled(values, np.mean([array for _, array in items], axis=0))
    return models


def _interval_rows(model: str, places: Mapping[Place, Resampled]) -> Iterator[list[object]]:
    for (dataset, embedding, score, rule, metric), found in places.items():
        low, high = np.percentile(found.replicates, LEVEL)
        row = [dataset, embedding, model, score, rule, metric, len(found.values), found.values.mean(), low, high]
        yield row


def _difference_rows(
    model: str, places: Mapping[Place, Resampled], baseline: str, others: Mapping[Place, Resampled]
) -> Iterator[list[object]]:
    """Every score of a model against the one score of the baseline."""
    for (dataset, embedding, score, rule, metric), found in places.items():
        here = (dataset, embedding, rule, metric)
        other = next((other for place, other in others.items() if place[:2] + place[3:] == here), None)
        if other is None:
            continue
        low, high = np.percentile(found.replicates - other.replicates, LEVEL)
        difference = found.values.mean() - other.values.mean()
        yield [dataset, embedding, model, baseline, score, rule, metric, difference, low, high]
