"""What was measured, as rows of a table, and as a table to be read."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from dinodp.evaluation.intervals import interval
from dinodp.scans.measuring.conventions import Found, Measured

Row = dict[str, Any]


def metric_rows(measured: Measured) -> list[Row]:
    """One row per metric and convention: the convention's parts, value, and interval where there is one."""
    return [{**key._asdict(), "value": found.value, **_interval(found)} for key, found in measured.found.items()]


def difference_rows(first: Measured, second: Measured) -> list[Row]:
    """One row per metric and convention of both: values, first minus second, interval over the same resamples."""
    rows = []
    for key, one in first.found.items():
        two = second.found.get(key)
        if two is None or one.replicates is None or two.replicates is None:
            continue
        difference = one.value - two.value
        low, high = interval(difference, one.replicates - two.replicates, one.n_subjects, difference=True)
        rows.append(
            {**key._asdict(), "first": one.value, "second": two.value, "difference": difference, "low": low,
             "high": high}
        )  # fmt: skip
    return rows


def _interval(found: Found) -> Row:
    known = found.replicates is not None
    low, high = interval(found.value, found.replicates, found.n_subjects) if known else (None, None)  # type: ignore[arg-type]
    return {"low": low, "high": high}


def summary(rows: Sequence[Row], value: str) -> str:
    """A table with a column for each convention and a line for each metric: value and 95 % interval."""
    conventions = list(dict.fromkeys(_convention(row) for row in rows if not (row["score"] or row["group"])))
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["score"] or row["group"]:
            continue
        lines.setdefault(row["metric"], {})[_convention(row)] = _shown(row, value)
    table = [[metric, *(cells.get(convention, "") for convention in conventions)] for metric, cells in lines.items()]
    parts = [tabulate(table, headers=["metric", *conventions], disable_numparse=True)]
    for part, heading in (("score", "score of an image"), ("group", "group")):
        chosen = [[row["metric"], row[part], _convention(row), _shown(row, value)] for row in rows if row[part]]
        if chosen:
            headers = ["metric", heading, "convention", value]
            parts.append(tabulate(chosen, headers=headers, disable_numparse=True))
    return "\n\n".join(parts)


def _convention(row: Mapping[str, Any]) -> str:
    return f"{row['masks']}, {row['pixels']}\n{row['over']}"


def _shown(row: Mapping[str, Any], value: str) -> str:
    ends = "" if row["low"] is None else f" [{row['low']:.4f}, {row['high']:.4f}]"
    return f"{row[value]:.4f}{ends}"


