"""The report's tables: published beside reproduced with a verdict, all results, differences between models, cost."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd
from scipy.stats import t as student

from dinodp.evaluation.intervals import LEVEL
from dinodp.metrics.definitions import METRICS, metrics_of, names_of
from dinodp.options.protocol import Protocol
from dinodp.report.comparability import unlike_published
from dinodp.report.tables.rows import published_values

KEYS = [
    "dataset", "embedding", "family", "model", "variant", "score", "primary", "normalised", "mask_rule", "metric"
]  # fmt: skip
PLACE = ["dataset", "embedding", "model", "score", "mask_rule", "metric"]
REPRODUCED, WITHIN, DIFFERS = "reproduced", "within the interval", "differs"
COMPARABLE = (REPRODUCED, WITHIN, DIFFERS)
OTHER, OTHER_MASKS, OTHER_RUN, OTHER_PROTOCOL, VARIANT, NOTHING = (
    "other embedding", "other mask rule", "other data or weights", "other protocol", "variant", "–"
)  # fmt: skip
MIN_SEEDS = 3  # of two, t is 12.7: any value would lie within
COST_DIGITS = {
    "fit_seconds": 1,
    "backbone_ms_per_image": 1,
    "scoring_ms_per_image": 1,
    "peak_host_mib": 0,
    "peak_gpu_mib": 0,
    "model_mib": 2,
    "active_components": 1,
}
Record = dict[Hashable, Any]


def result_rows(
    metrics: pd.DataFrame,
    intervals: pd.DataFrame | None,
    published: pd.DataFrame,
    protocol: Protocol,
    config: Mapping[str, Any],
) -> list[Record]:
    """One row per (data set, embedding, model, score, mask rule, metric), values as shown: most in percent.

    ``mean`` and ``std`` (n - 1) over seeds; ``low`` and ``high`` of the 95 % interval over subjects; ``published`` and
    its ``origin``; ``difference`` (ours minus published, percentage points) for the published embedding and mask rule
    only; ``verdict`` where the run of ``config`` is the published one in model, data, weights and protocol: else what
    is not. ``tolerance`` is the metric's share of the published value; `WITHIN` is an interval over subjects and seeds.
    What is not known is None.
    """
    frame = _over_seeds(metrics[metrics["metric"].isin(METRICS)])
    frame["published"] = _published(frame, published)
    if intervals is not None:
        frame = frame.merge(intervals[[*PLACE, "low", "high"]], how="left", on=PLACE)
        frame[["low", "high"]] = frame[["low", "high"]].mul(_factors(frame), axis=0)
    else:
        frame = frame.assign(low=float("nan"), high=float("nan"))
    rows = [
        {name: None if pd.isna(value) else value for name, value in record.items()}
        for record in frame.to_dict("records")
    ]
    return [row | _verdict(row, published, protocol, config) for row in rows]


def _over_seeds(metrics: pd.DataFrame) -> pd.DataFrame:
    groups = metrics.groupby(KEYS, sort=False, dropna=False)
    frame = groups["value"].agg(["mean", "std"]).assign(seeds=groups["seed"].nunique()).reset_index()
    frame[["mean", "std"]] = frame[["mean", "std"]].mul(_factors(frame), axis=0)
    order = {metric: index for index, metric in enumerate(METRICS)}
    kept = frame.assign(order=frame["metric"].map(order), place=frame.groupby(PLACE[:4], sort=False).ngroup())
    return kept.sort_values(["place", "mask_rule", "order"], kind="stable", ignore_index=True)


def _factors(frame: pd.DataFrame) -> "pd.Series[float]":
    """From the values in files to those that are shown: percent, for most metrics."""
    return frame["metric"].map({name: metric.factor for name, metric in METRICS.items()})


def _published(frame: pd.DataFrame, published: pd.DataFrame) -> "pd.Series[float]":
    values = pd.Series(float("nan"), index=frame.index)
    for metric, rows in frame.groupby("metric"):
        values[rows.index] = published_values(rows, published, str(metric))
    return values


def _verdict(row: Record, published: pd.DataFrame, protocol: Protocol, config: Mapping[str, Any]) -> Record:
    if row["published"] is None:
        return {"origin": None, "difference": None, "tolerance": None, "verdict": NOTHING}
    source, origin = _origin(row, published)
    apart: Record = {"origin": origin, "difference": None, "tolerance": None}
    if row["embedding"] != protocol.published_embedding:
        return apart | {"verdict": OTHER}
    if row["mask_rule"] != protocol.mask_rule:
        return apart | {"verdict": OTHER_MASKS}
    difference = row["mean"] - row["published"]
    compared = apart | {"difference": difference, "tolerance": METRICS[row["metric"]].tolerance * row["published"]}
    if row["variant"]:
        return compared | {"verdict": VARIANT}
    if others := unlike_published(config, row["dataset"], protocol):
        return compared | {"origin": f"{origin}; here {', '.join(others)}", "verdict": OTHER_RUN}
    if deviations := protocol.deviations(row["metric"], source):
        return compared | {"origin": f"{origin}; here {', '.join(deviations)}", "verdict": OTHER_PROTOCOL}
    if abs(difference) <= compared["tolerance"]:
        return compared | {"verdict": REPRODUCED}
    return compared | {"verdict": WITHIN if _holds(row, difference) else DIFFERS}


def _holds(row: Record, difference: float) -> bool:
    """Whether an interval over subjects and seeds holds the published value, which is one fit's.

    The ends of the interval over subjects, and t times the spread of one more fit, add in squares; fewer than MIN_SEEDS
    say nothing of the spread.
    """
    if row["low"] is None:
        return False
    subjects = row["mean"] - row["low"] if difference > 0 else row["high"] - row["mean"]
    seeds = row["seeds"]
    fits = student.ppf(LEVEL, seeds - 1) * row["std"] * (1 + 1 / seeds) ** 0.5 if seeds >= MIN_SEEDS else 0.0
    return bool(abs(difference) <= (subjects**2 + fits**2) ** 0.5)


def _origin(row: Record, published: pd.DataFrame) -> tuple[str, str]:
    """The source of a published value; and in words: source, table, and whether it was read in the paper itself."""
    known = published[
        (published["dataset"] == row["dataset"])
        & (published["metric"] == row["metric"])
        & (published["value"] == row["published"])
        & (published["method"] == row["family"])
    ]
    first = known.iloc[0]
    return str(first["source"]), f"{first['source']}, table {first['table']}, {first['provenance']}"


def headline(rows: Sequence[Record], protocol: Protocol) -> list[Record]:
    """The rows of the first table: every model but the controls by its first score, the metrics of the protocol.

    Of the embedding that the published values are for where the run has it, else of all embeddings; image AUROC, and
    lesions found where they are boxes, where there are no masks.
    """
    embeddings = {row["embedding"] for row in rows}
    with_masks = {row["dataset"] for row in rows if row["metric"] in protocol.metrics}
    without = (*metrics_of("images"), *names_of("lesions"))
    return [
        row
        for row in rows
        if row["primary"]
        and row["mask_rule"] == protocol.mask_rule
        and row["family"] != "control"
        and row["metric"] in (protocol.metrics if row["dataset"] in with_masks else without)
        and (protocol.published_embedding not in embeddings or row["embedding"] == protocol.published_embedding)
    ]


def summary(rows: Sequence[Record]) -> dict[str, Any]:
    """The headline's rows side by side: the ``metrics``, and one line per data set, embedding and model."""
    lines: dict[tuple[str, str, str], dict[str, Record]] = {}
    for row in rows:
        lines.setdefault((row["dataset"], row["embedding"], row["model"]), {})[row["metric"]] = row
    known = {row["metric"] for row in rows}
    return {
        "metrics": [metric for metric in METRICS if metric in known],
        "lines": [
            {"dataset": dataset, "embedding": embedding, "model": model, "rows": found}
            for (dataset, embedding, model), found in lines.items()
        ],
    }


def overview(protocol: Protocol, rows: Sequence[Record]) -> tuple[str, ...]:
    """The metrics of each gallery's table; those of lesions where the run has them."""
    middle, known = protocol.dice_metrics[1], {row["metric"] for row in rows}
    usual = ("pixel_auroc", "pixel_average_precision", "aupro_30", middle, "max_dice", *metrics_of("images"))
    return (*usual, *(name for name in names_of("lesions") if name in known))


def by_model(rows: Sequence[Record], mask_rule: str) -> dict[tuple[str, str], dict[str, dict[str, Record]]]:
    """Rows of the first score of every model: {(data set, embedding): {model: {metric: row}}}."""
    found: dict[tuple[str, str], dict[str, dict[str, Record]]] = {}
    for row in rows:
        dataset, embedding, model = (str(row[name]) for name in PLACE[:3])
        if row["primary"] and row["mask_rule"] == mask_rule:
            found.setdefault((dataset, embedding), {}).setdefault(model, {})[str(row["metric"])] = row
    return found


def difference_rows(differences: pd.DataFrame | None, mask_rule: str, rows: Sequence[Record]) -> list[Record]:
    """Model minus baseline, percentage points, for the models, scores and metrics of the headline ``rows``."""
    if differences is None:
        return []
    wanted = {tuple(row[key] for key in PLACE): index for index, row in enumerate(rows)}
    shown = []
    for record in differences[differences["mask_rule"] == mask_rule].to_dict("records"):
        if tuple(record[key] for key in PLACE) in wanted:
            metric = METRICS[str(record["metric"])]
            value, low, high = (_shown(record[name], metric.factor) for name in ("value", "low", "high"))
            shown.append({**record, "value": value, "low": low, "high": high, "reading": _reading(low, high)})
    return sorted(shown, key=lambda record: wanted[tuple(record[key] for key in PLACE)])


def _shown(value: float, factor: float) -> float | None:
    return None if pd.isna(value) else factor * value


def _reading(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "too few subjects"
    return "lower" if high < 0 else "higher" if low > 0 else "no difference shown"


def counts(rows: Sequence[Record]) -> dict[str, int]:
    """How many rows of a table have each verdict."""
    verdicts = [str(row["verdict"]) for row in rows]
    names = (*COMPARABLE, VARIANT, OTHER_PROTOCOL, OTHER_RUN, OTHER)
    return {name: verdicts.count(name) for name in names if name in verdicts}


def cost_rows(costs: pd.DataFrame) -> list[dict[str, Any]]:
    """Mean over seeds of what each model cost; what was not measured is None."""
    keys = ["dataset", "embedding", "model", "device"]
    frame = costs.fillna({"device": ""}).groupby(keys, sort=False).mean(numeric_only=True).reset_index()
    return [
        {key: record[key] for key in keys}
        | {name: None if pd.isna(record[name]) else record[name] for name in COST_DIGITS}
        for record in frame.to_dict("records")
    ]


def scale(rows: Sequence[Mapping[Any, Any]], value: str, low: str, high: str) -> float:
    """Half the width of an axis that holds every value with its interval: the next of 1, 2, 5, 10, 20, 50, 100."""
    shown = [abs(row[name]) for row in rows for name in (value, low, high) if row.get(name) is not None]
    return float(next((step for step in (1, 2, 5, 10, 20, 50) if max(shown, default=0) <= step), 100))
