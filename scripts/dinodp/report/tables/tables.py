"""Tables of results as CSV (numbers), Markdown and LaTeX (mean ± std): one function per table, all in ``TABLES``.

Each function takes three tidy frames (metrics, costs, and published as `protocol.read_published` gives it) and the
protocol.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from dinodp.errors import InputError
from dinodp.jobs.files import write_text
from dinodp.options.protocol import Protocol
from dinodp.report.tables.latex import grouped_table, plain_table

FAMILIES = ("memory_bank", "dpmm")  # the paper's, in its order; others follow by name, controls last
SCORES = ("cosine", "log_likelihood", "euclidean", "mahalanobis")  # in the paper's order; others follow by name
DETECTION = ("pixel_auroc", "pixel_average_precision", "pixel_aupr_trapezoid")
KEYS = ["dataset", "embedding", "family", "model", "variant", "score", "normalised", "mask_rule"]
COSTS = (
    "fit_seconds",
    "backbone_ms_per_image",
    "scoring_ms_per_image",
    "total_ms_per_image",
    "peak_host_mib",
    "peak_gpu_mib",
    "model_mib",
    "active_components",
)
HEADINGS = {
    "pixel_auroc": "Pixel AUROC",
    "pixel_average_precision": "Pixel AP",
    "pixel_aupr_trapezoid": "Pixel AUPR",
    "dice_fpr10": "Dice, FPR 10 %",
    "dice_fpr05": "Dice, FPR 5 %",
    "dice_fpr01": "Dice, FPR 1 %",
    "dice_pixel_fpr10": "Dice at pixel threshold, FPR 10 %",
    "dice_pixel_fpr05": "Dice at pixel threshold, FPR 5 %",
    "dice_pixel_fpr01": "Dice at pixel threshold, FPR 1 %",
    "dataset": "Data set",
    "embedding": "Embedding",
    "model": "Model",
    "score": "Score",
    "normalised": "Unit length",
    "mask_rule": "Mask rule",
    "seeds": "Seeds",
    "fit_seconds": "Fit (s)",
    "backbone_ms_per_image": "Backbone (ms/image)",
    "scoring_ms_per_image": "Scoring (ms/image)",
    "total_ms_per_image": "Total (ms/image)",
    "peak_host_mib": "Peak host (MiB)",
    "peak_gpu_mib": "Peak GPU (MiB)",
    "model_mib": "Model (MiB)",
    "active_components": "Active components",
    "device": "Device",
}
DECIMALS = {"fit_seconds": 1, "peak_host_mib": 0, "peak_gpu_mib": 0, "active_components": 1}
PAPER_LABELS = {"embedding": "Embedding", "model": "Method"}
PUBLISHED_NOTE = "In italics: the published value; where the embedding is another, it is not comparable."
AUPR_NAMES = {"trapezoid": "trapezoid under the curve", "average_precision": "average precision"}
SPREAD_NOTE = "Mean ± standard deviation over seeds (n - 1); no ± where there is a single seed."


@dataclass(frozen=True)
class Table:
    """A table: ``frame`` holds numbers in columns ``<quantity>_mean``, ``_std``, ``_published``, ``_difference``.

    ``paper_caption``, ``paper_labels`` and ``paper_metrics``: what the LaTeX table shows, as in the paper, and under
    which headings.
    """

    frame: pd.DataFrame
    caption: str
    notes: tuple[str, ...] = ()
    paper_caption: str = ""
    paper_labels: Mapping[str, str] = field(default_factory=dict)
    paper_metrics: Mapping[str, str] = field(default_factory=dict)


TableFunction = Callable[[pd.DataFrame, pd.DataFrame, pd.DataFrame, Protocol], Table]


def table1(metrics: pd.DataFrame, costs: pd.DataFrame, published: pd.DataFrame, protocol: Protocol) -> Table:
    """Pixel AUROC and AUPR of each model's primary score, percent, beside the published values."""
    frame = _compare(primary_scores(metrics), published, protocol.published_embedding, DETECTION, "table1")
    caption = "Pixel-wise detection of anomalies, in percent. AP: average precision; AUPR: trapezoid, as published."
    notes = _notes(frame, published, protocol)
    short = f"Pixel-wise detection of anomalies, in percent. AUPR: {AUPR_NAMES[protocol.aupr]}."
    return Table(frame, caption, notes, short, PAPER_LABELS, _detection_headings(frame, protocol))


def table2(metrics: pd.DataFrame, costs: pd.DataFrame, published: pd.DataFrame, protocol: Protocol) -> Table:
    """Dice at thresholds calibrated to FPR 10, 5 and 1 %, percent, beside the published values."""
    frame = _compare(primary_scores(metrics), published, protocol.published_embedding, protocol.dice_metrics, "table2")
    where = "patches" if protocol.threshold_maps == "patch" else "pixels"
    caption = f"Dice, in percent, at thresholds calibrated to a false positive rate (FPR) on normal validation {where}."
    headings = {name: f"FPR {int(name[-2:])} %" for name in protocol.dice_metrics if f"{name}_mean" in frame}
    return Table(frame, caption, _notes(frame, published, protocol), caption, PAPER_LABELS, headings)


def table3(metrics: pd.DataFrame, costs: pd.DataFrame, published: pd.DataFrame, protocol: Protocol) -> Table:
    """Every score of the mixtures, with and without unit length, percent, beside the published values."""
    mixtures = metrics[metrics["family"] == "dpmm"]
    frame = _compare(mixtures, published, protocol.published_embedding, DETECTION, "table3")
    caption = "Scores of the mixture, embeddings with and without unit length, in percent. AP, AUPR as in table 1."
    labels = {**PAPER_LABELS, "score": "Score", "normalised": "Unit length"}
    notes = _notes(frame, published, protocol)
    short = "Scores of the mixture, embeddings with and without unit length, in percent. AUPR as in table 1."
    return Table(frame, caption, notes, short, labels, _detection_headings(frame, protocol))


def _detection_headings(frame: pd.DataFrame, protocol: Protocol) -> dict[str, str]:
    headings = {"pixel_auroc": "AUROC", protocol.aupr_metric: "AUPR"}
    return {name: text for name, text in headings.items() if f"{name}_mean" in frame}


def costs(metrics: pd.DataFrame, costs: pd.DataFrame, published: pd.DataFrame, protocol: Protocol) -> Table:
    """Time, memory and size of each model; mean and standard deviation over seeds."""
    if costs.empty:
        raise InputError("Table 'costs' has no row: the run measured no cost of any model.")
    families = metrics[["dataset", "embedding", "model", "family"]].drop_duplicates()
    rows = costs.merge(families, how="left", on=["dataset", "embedding", "model"]).fillna({"family": "", "device": ""})
    rows["total_ms_per_image"] = rows["backbone_ms_per_image"] + rows["scoring_ms_per_image"]
    frame = _mean_and_std(rows, ["dataset", "embedding", "family", "model", "device"], COSTS)
    notes = (SPREAD_NOTE, "Host memory is the peak of the whole process. Times hold for the device named only.")
    return Table(_order(frame).drop(columns="family"), "Time, memory and size of the models.", notes)


TABLES: dict[str, TableFunction] = {"table1": table1, "table2": table2, "table3": table3, "costs": costs}


def write_table(table: Table, csv_path: Path, md_path: Path, tex_path: Path) -> None:
    """Write the numbers as CSV and the formatted table as Markdown and LaTeX; each file is complete or absent."""
    shown, common = _display(table)
    caption = " ".join([table.caption, *common])
    write_text(csv_path, table.frame.to_csv(index=False, float_format="%.6g"))
    write_text(md_path, _markdown(shown, caption, table.notes))
    write_text(tex_path, _latex(table, shown, common))


# Rows and numbers


def primary_scores(metrics: pd.DataFrame) -> pd.DataFrame:
    """Keep the first score of each model's catalog entry."""
    return metrics[metrics["primary"]]


def _compare(
    rows: pd.DataFrame, published: pd.DataFrame, published_embedding: str, names: Sequence[str], table: str
) -> pd.DataFrame:
    """Mean and std in percent per (KEYS), with published value and difference beside each metric that has one.

    A variant of the paper's model has none.
    """
    wide = _wide(rows, names)
    present = [name for name in names if name in wide]
    if wide.empty or not present:
        raise InputError(f"Table {table!r} has no row: the run has no metric among {', '.join(names)} for its models.")
    frame = _order(_mean_and_std(wide, KEYS, present))
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
    """One row per (KEYS, seed), one column in percent per metric among ``names`` that the run has."""
    chosen = rows[rows["metric"].isin(list(names))].assign(normalised=rows["normalised"].fillna(""))
    wide = chosen.pivot_table(index=[*KEYS, "seed"], columns="metric", values="value", dropna=False, observed=True)
    percent = 100 * wide.dropna(how="all")
    return percent.reset_index()


def _mean_and_std(rows: pd.DataFrame, keys: list[str], names: Sequence[str]) -> pd.DataFrame:
    """Mean and std (n - 1) over seeds; quantities without any value are left out."""
    groups = rows.groupby(keys, sort=False, dropna=False)
    frame = groups["seed"].nunique().rename("seeds").to_frame()
    for name in names:
        if rows[name].notna().any():
            frame[f"{name}_mean"] = groups[name].mean()
            frame[f"{name}_std"] = groups[name].std()
    return frame.reset_index()


def _order(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort by data set and embedding, then memory bank, mixture, others, controls, then score and normalisation."""
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


def _notes(frame: pd.DataFrame, published: pd.DataFrame, protocol: Protocol) -> tuple[str, ...]:
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


# Formatting


def _display(table: Table) -> tuple[pd.DataFrame, list[str]]:
    """Text cells under readable headings; and the labels with one value throughout, which belong in the caption."""
    frame = table.frame
    shown, common = pd.DataFrame(index=frame.index), []
    for column in frame.columns:
        name = column.removesuffix("_mean")
        if column.endswith("_std"):
            continue
        if name != column:
            shown[HEADINGS[name]] = _with_spread(frame, name)
        elif column.endswith(("_published", "_difference")):
            shown[_comparison_heading(column)] = [_number(value, 2, column) for value in frame[column]]
        elif column not in ("dataset", "model") and frame[column].nunique() == 1:
            common.append(f"{HEADINGS[column]}: {frame[column].iloc[0]}.")
        elif column in HEADINGS:
            shown[HEADINGS[column]] = frame[column].astype(str)
    return shown, [text for text in common if not text.endswith(": .")]


def _with_spread(frame: pd.DataFrame, name: str) -> list[str]:
    decimals = DECIMALS.get(name, 2)
    spreads = frame[f"{name}_std"] if f"{name}_std" in frame else pd.Series(float("nan"), index=frame.index)
    return [
        _number(mean, decimals) + ("" if pd.isna(spread) else f" ± {_number(spread, decimals)}")
        for mean, spread in zip(frame[f"{name}_mean"], spreads, strict=True)
    ]


def _number(value: float, decimals: int, column: str = "") -> str:
    if pd.isna(value):
        return ""
    return f"{value:+.{decimals}f}" if column.endswith("_difference") else f"{value:.{decimals}f}"


def _comparison_heading(column: str) -> str:
    name, _, kind = column.rpartition("_")
    return f"{HEADINGS[name]}, {kind}"


def _markdown(shown: pd.DataFrame, caption: str, notes: Sequence[str]) -> str:
    text_columns = {HEADINGS[name] for name in (*KEYS, "device") if name in HEADINGS}
    align = ["left" if column in text_columns else "right" for column in shown.columns]
    body = shown.replace({r"\|": r"\\|"}, regex=True).to_markdown(index=False, disable_numparse=True, colalign=align)
    return "\n\n".join([f"**{caption}**", str(body), *notes]) + "\n"


def _latex(table: Table, shown: pd.DataFrame, common: Sequence[str]) -> str:
    """In the layout of the paper where the table has one in it, else as shown."""
    if table.paper_metrics:
        caption = " ".join([table.paper_caption, *common])
        compared = any(str(column).endswith("_published") for column in table.frame)
        notes = (SPREAD_NOTE, PUBLISHED_NOTE) if compared else (SPREAD_NOTE,)
        return grouped_table(table.frame, table.paper_labels, table.paper_metrics, caption, notes)
    caption = " ".join([table.caption, *common])
    text_columns = {HEADINGS[name] for name in (*KEYS, "device") if name in HEADINGS}
    return plain_table(shown, text_columns, caption, table.notes)
