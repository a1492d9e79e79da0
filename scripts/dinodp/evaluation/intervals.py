"""Intervals of a run's metrics, and of the difference between two models, from the resamples that every job wrote."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import t as student

from dinodp import store
from dinodp.evaluation.collecting import digests_of, read_evaluations
from dinodp.jobs.origin import name_of, write_table

LEVEL = 0.975  # of each end of a 95 % interval
MIN_SUBJECTS = 3  # with an anomaly; resamples of one are all the same, of two take three values
Floats = npt.NDArray[np.float64]
Quantity = tuple[str, str, str, str, str]  # dataset, embedding, score, mask rule, metric
INTERVAL_COLUMNS = ["dataset", "embedding", "model", "score", "mask_rule", "metric", "seeds", "value", "low", "high"]
DIFFERENCE_COLUMNS = [
    "dataset", "embedding", "model", "minus", "score", "mask_rule", "metric", "value", "low", "high"
]  # fmt: skip


@dataclass(frozen=True)
class Resampled:
    """One metric of one model: its values over seeds [seed], and over resamples, averaged over seeds [resample].

    ``n_subjects``: the test subjects with an anomaly.
    """

    values: Floats
    replicates: Floats
    n_subjects: int


def interval(
    value: float, replicates: Floats, n_subjects: int, *, difference: bool = False
) -> tuple[float, float] | tuple[None, None]:
    """95 % interval about a metric's ``value`` from its resamples [resample]; None below MIN_SUBJECTS.

    Student's t with n - 1 degrees of freedom times the standard deviation of the resamples, times sqrt(n / (n - 1)), on
    the logit of a metric, or of a ``difference`` of two as it is. Percentiles of the resamples of few subjects are too
    narrow: `benchmarks/interval_coverage.py` simulates both.
    ``n_subjects`` n: how many of the resampled subjects have an anomaly (`anomalous_subjects`). None as well where a
    resample has no value, as where few of them have an anomalous pixel under a mask rule.
    """
    if n_subjects < MIN_SUBJECTS or not len(replicates) or not np.isfinite(replicates).all():
        return None, None
    if difference:
        return _student(value, replicates, n_subjects)
    if min(value, replicates.min()) > 0 and max(value, replicates.max()) < 1:
        low, high = _student(float(logit(value)), logit(replicates), n_subjects)
        return float(expit(low)), float(expit(high))
    low, high = _student(value, replicates, n_subjects)
    return max(0.0, low), min(1.0, high)


def _student(value: float, replicates: Floats, n: int) -> tuple[float, float]:
    half = student.ppf(LEVEL, n - 1) * replicates.std() * np.sqrt(n / (n - 1))
    return float(value - half), float(value + half)


def anomalous_subjects(subjects: Sequence[str], anomalous: Iterable[bool]) -> int:
    """How many of the ``subjects`` (one name per image) have an ``anomalous`` image."""
    return len({subject for subject, flag in zip(subjects, anomalous, strict=True) if flag})


def collect_intervals(
    metrics: Sequence[Path], curves: Sequence[Path], baseline: str, intervals: Path, differences: Path
) -> None:
    """Write 95 % intervals of every metric, and of every model minus the ``baseline`` model.

    ``metrics`` and ``curves`` are the files of the same jobs in the same order. Both tables hold the mean over seeds;
    the interval is over subjects, and empty where too few have an anomaly. A difference uses the same resamples for
    both models: every score of a model against the first score of the baseline. Raises InputError as
    `read_evaluations` does.
    """
    contents = read_evaluations(metrics, curves)
    made_from = digests_of(metrics, contents) | {name_of(path): store.digest_of(path) for path in curves}
    models = _read(contents, curves)
    rows = [row for name, places in models.items() for row in _interval_rows(name, places)]
    write_table(intervals, pd.DataFrame(rows, columns=INTERVAL_COLUMNS).to_csv(index=False), __name__, made_from)
    first = next((content["options"]["scores"][0] for content in contents if content["model"] == baseline), "")
    compared = {_without_score(place): found for place, found in models.get(baseline, {}).items() if place[2] == first}
    others = [name for name in models if name != baseline]
    rows = [row for name in others for row in _difference_rows(name, models[name], baseline, compared)]
    write_table(differences, pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS).to_csv(index=False), __name__, made_from)


def _without_score(place: Quantity) -> tuple[str, ...]:
    return place[:2] + place[3:]


def _read(contents: Sequence[Mapping[str, Any]], curves: Sequence[Path]) -> dict[str, dict[Quantity, Resampled]]:
    """By model and place: values of all seeds, resamples averaged over them."""
    found: dict[tuple[str, Quantity], list[tuple[float, Floats]]] = {}
    subjects: dict[tuple[str, str], int] = {}  # of a data set and embedding
    for content, path in zip(contents, curves, strict=True):
        with store.reading(path, "curves") as file:
            subjects[content["dataset"], content["embedding"]] = store.config_of(file)["anomalous_subjects"]
            for score, rules in content["metrics"].items():
                for rule, values in rules.items():
                    for metric, replicates in file.get(f"replicates/{score}/{rule}", {}).items():
                        place = (content["dataset"], content["embedding"], score, rule, metric)
                        item = (float(values[metric]), replicates[()])
                        found.setdefault((content["model"], place), []).append(item)
    models: dict[str, dict[Quantity, Resampled]] = {}
    for (model, place), items in found.items():
        values = np.array([value for value, _ in items])
        replicates = np.mean([array for _, array in items], axis=0)
        models.setdefault(model, {})[place] = Resampled(values, replicates, subjects[place[:2]])
    return models


def _interval_rows(model: str, places: Mapping[Quantity, Resampled]) -> Iterator[list[object]]:
    for (dataset, embedding, score, rule, metric), found in places.items():
        low, high = interval(found.values.mean(), found.replicates, found.n_subjects)
        row = [dataset, embedding, model, score, rule, metric, len(found.values), found.values.mean(), low, high]
        yield row


def _difference_rows(
    model: str, places: Mapping[Quantity, Resampled], baseline: str, compared: Mapping[tuple[str, ...], Resampled]
) -> Iterator[list[object]]:
    """Every score of a model against the first score of the baseline."""
    for place, found in places.items():
        other = compared.get(_without_score(place))
        if other is None:
            continue
        dataset, embedding, score, rule, metric = place
        difference = found.values.mean() - other.values.mean()
        low, high = interval(difference, found.replicates - other.replicates, found.n_subjects, difference=True)
        yield [dataset, embedding, model, baseline, score, rule, metric, difference, low, high]
