"""Rows of tables: means over seeds in the order of tables, beside published values."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from dinodp.errors import NothingToShow
from dinodp.metrics.definitions import METRICS
from dinodp.options.protocol import Protocol
from dinodp.report.tables.table import SPREAD_NOTE

FAMILIES = ("memory_bank", "dpmm")  # the paper's, in its order; others follow by name, controls last
SCORES = ("cosine", "log_likelihood", "euclidean", "mahalanobis")  # in the paper's order; others follow by name
DETECTION = ("pixel_auroc", "pixel_average_precision", "pixel_aupr_trapezoid")
KEYS = ["dataset", "embedding", "family", "model", "variant", "score", "normalised", "mask_rule"]


def primary_scores(metrics: pd.DataFrame) -> pd.DataFrame:
    """Keep the first score of each model's catalog entry."""
    return metrics[metrics["primary"]]


def compare(
    rows: pd.DataFrame, published: pd.DataFrame, published_embedding: str, names: Sequence[str], table: str
) -> pd.DataFrame:
    """Mean and std in percent per (KEYS), with published value and difference beside each metric that has one.

    A variant of the paper's model has none.
    """
    wide = _wide(rows, names)
    present = [name for name in names if name in wide]
    if wide.empty or not present:
        wanted = ", ".join(names)
        raise NothingToShow(f"Table {table!r} has no row: the run has no metric among {wanted} for its models.")
    frame = in_order(mean_and_std(wide, KEYS, present))
    for name in present:
        mean = frame[f"{name}_mean"]
        values = published_values(frame, published, name).where(mean.notna() & ~frame["variant"])
        if values.notna().any():
            place = frame.columns.get_indexer(pd.Index([f"{name}_std"]))[0] + 1
            frame.insert(place, f"{name}_published", values)
            difference = (mean - values).where(frame["embedding"] == published_embedding)
            frame.insert(place + 1, f"{name}_difference", difference)
    return frame.drop(columns=["family", "variant"]).dropna(axis="columns", how="all")


def _wide(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """One row per (KEYS, seed), one column as shown (percent) per metric among ``names`` that the run has."""
    chosen = rows[rows["metric"].isin(list(names))].assign(normalised=rows["normalised"].fillna(""))
    wide = chosen.pivot_table(index=[*KEYS, "seed"], columns="metric", values="value", dropna=False, observed=True)
    known = wide.dropna(how="all")
    shown = known * [METRICS[name].factor if name in METRICS else 1.0 for name in known]
    return shown.reset_index()


def mean_and_std(rows: pd.DataFrame, keys: list[str], names: Sequence[str]) -> pd.DataFrame:
    """Mean and std (n - 1) over seeds; quantities without any value are left out."""
    groups = rows.groupby(keys, sort=False, dropna=False)
    frame = groups["seed"].nunique().rename("seeds").to_frame()
    for name in names:
        if rows[name].notna().any():
            frame[f"{name}_mean"] = groups[name].mean()
            frame[f"{name}_std"] = groups[name].std()
    return frame.reset_index()


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort by data set and embedding, then memory bank, mixture, controls, then score and normalisation."""
    ranks = {
        "family": _rank(FAMILIES, frame.get("family", ()), last="control"),
        "score": _rank(SCORES, frame.get("score", ())),
        "normalised": _rank(("no", "yes", "")),
    }
    keys = [key for key in KEYS if key in frame]
    return frame.sort_values(
        keys,
        key=lambda column: column.map(ranks[str(column.name)]).fillna(-1) if column.name in ranks else column,
        kind="stable",
        ignore_index=True,
    )


def _rank(first: Sequence[str], names: Iterable[str] = (), last: str = "") -> dict[str, int]:
    """The place of each name: those of ``first``, the other ``names`` in alphabetical order, ``last``."""
    others = sorted({*names} - {*first, last, ""})
    return {name: index for index, name in enumerate([*first, *others, last])}


def published_values(frame: pd.DataFrame, published: pd.DataFrame, metric: str) -> "pd.Series[float]":
    """The published value in percent of each row's (data set, family, score, normalised), NaN where there is none."""
    known = _published_lookup(published, metric)
    values = [
        known.get((row.dataset, row.family, row.score, row.normalised), _without_score(row, known))
        for row in frame.itertuples()
    ]
    return pd.Series(values, index=frame.index, dtype=float)


def _published_lookup(published: pd.DataFrame, metric: str) -> dict[tuple[object, ...], float]:
    keys = ["dataset", "method", "score", "normalized"]
    rows = published[published["metric"] == metric].fillna(dict.fromkeys(keys, "")) if len(published) else published
    if rows.empty:
        return {}
    first = rows.drop_duplicates(keys)
    return dict(zip(first[keys].itertuples(index=False, name=None), first["value"].astype(float), strict=True))


def _without_score(row: Any, known: dict[tuple[object, ...], float]) -> float:
    """The follow-up paper names no score: its value is that of the cosine and unit length."""
    if (row.score, row.normalised) != ("cosine", "yes"):
        return float("nan")
    return known.get((row.dataset, row.family, "", ""), float("nan"))


def published_notes(frame: pd.DataFrame, published: pd.DataFrame, protocol: Protocol) -> tuple[str, ...]:
    compared = [str(column).removesuffix("_published") for column in frame if str(column).endswith("_published")]
    if not compared:
        return (SPREAD_NOTE,)
    return (
        SPREAD_NOTE,
        f"Published values are for {protocol.published_embedding}, and given for models with the paper's options only; "
        "a difference (ours minus published, percentage points) is given only for that embedding. Values of another "
        "embedding are not comparable with them.",
        *_deviations(compared, published, protocol),
    )


def _deviations(compared: Sequence[str], published: pd.DataFrame, protocol: Protocol) -> list[str]:
    """One sentence per paper whose values were made otherwise."""
    known = published[published["metric"].isin(compared)][["source", "metric"]].drop_duplicates()
    found: dict[str, dict[str, None]] = {}
    for source, metric in known.itertuples(index=False, name=None):
        found.setdefault(source, {}).update(dict.fromkeys(protocol.deviations(metric, source)))
    return [f"Otherwise than in {source}: {', '.join(names)}." for source, names in found.items() if names]


def detection_headings(frame: pd.DataFrame, protocol: Protocol) -> dict[str, str]:
    """The metrics of tables 1 and 3 in LaTeX, and their headings there."""
    headings = {"pixel_auroc": "AUROC", protocol.aupr_metric: "AUPR"}
    return {name: text for name, text in headings.items() if f"{name}_mean" in frame}
