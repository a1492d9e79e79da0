"""Failure analysis and alignment of components, by data set and embedding, as the page shows them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dinodp.evaluation.bias import metric_name
from dinodp.jobs.origin import read_table
from dinodp.options import places
from dinodp.options.protocol import Protocol
from dinodp.report.pictures import figure

Place = tuple[str, str]
PROPERTIES = {"lesion_share": "Lesion size", "contrast": "Lesion contrast", "level": "Slice level"}
INTERVAL = ["value", "low", "high"]


def strata_columns(protocol: Protocol, strata: Mapping[Place, Sequence[Mapping[str, Any]]]) -> tuple[str, ...]:
    """The metrics of the table of strata; that of healthy images only where there is metadata."""
    healthy = metric_name(protocol.thresholds[1])
    known = any(healthy in row["values"] for rows in strata.values() for row in rows)
    usual = ("image_auroc", "pixel_auroc", "pixel_average_precision", protocol.dice_metrics[1])
    return (*usual, healthy) if known else usual


def strata_rows(path: Path | None) -> dict[Place, list[dict[str, Any]]]:
    """One row per stratum and model, values in percent: {metric: (value, low, high)}; what is not known is None."""
    if path is None:
        return {}
    frame = read_table(path)
    found: dict[Place, list[dict[str, Any]]] = {}
    for _, place in frame.groupby(["dataset", "embedding"], sort=False):
        rows = [_stratum(rows) for _, rows in place.groupby(["property", "stratum", "model"], sort=False)]
        order = list(dict.fromkeys((row["property"], row["stratum"]) for row in rows))
        rows.sort(key=lambda row: order.index((row["property"], row["stratum"])))
        found[str(place["dataset"].iloc[0]), str(place["embedding"].iloc[0])] = rows
    return found


def _stratum(rows: pd.DataFrame) -> dict[str, Any]:
    first = rows.iloc[0]
    triples = rows[["value", "interval_low", "interval_high"]].itertuples(index=False, name=None)
    values = {
        str(metric): tuple(None if pd.isna(number) else 100 * number for number in triple)
        for metric, triple in zip(rows["metric"], triples, strict=True)
    }
    return {
        "property": PROPERTIES.get(first["property"], first["property"]),
        "stratum": first["stratum"],
        "range": _range(first["property"], float(first["low"]), float(first["high"])),
        "images": int(first["images"]),
        "subjects": int(first["subjects"]),
        "model": first["model"],
        "values": values,
        "prevalence": values["prevalence"][0] if "prevalence" in values else None,
    }


def _range(name: str, low: float, high: float) -> str:
    if np.isnan(low) or low == high:
        return ""
    if name == "lesion_share":
        return f"{100 * low:.2g} to {100 * high:.2g} % of the image"
    return f"{low:.2g} to {high:.2g}"


def alignments(tables: Sequence[Path], figures: Sequence[Path]) -> dict[Place, dict[str, Any]]:
    """The figure of each analysis, and its values (means over seeds) as one row per measure and kind of image."""
    found: dict[Place, dict[str, Any]] = {}
    for table, drawn in zip(tables, figures, strict=True):
        frame = read_table(table)
        models = list(dict.fromkeys(frame["model"]))
        rows = [_measure(rows, models) for _, rows in frame.groupby(["measure", "images"], sort=False)]
        names = places.parse(places.ALIGNMENT, table)
        found[names["dataset"], names["embedding"]] = {"models": models, "rows": rows, "address": figure(drawn)}
    return found


def _measure(rows: pd.DataFrame, models: Sequence[str]) -> dict[str, Any]:
    means = rows.groupby("model")[INTERVAL].mean()
    values = [tuple(means.loc[model]) if model in means.index else (None, None, None) for model in models]
    return {"measure": rows["measure"].iloc[0], "images": rows["images"].iloc[0], "values": values}
