"""Tables as LaTeX in the layout of the papers: one row per method, one group of columns per data set.

A document needs the packages booktabs and graphicx.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

CHARACTERS = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": "$-$",
    "≤": r"$\leq$",
}
PUBLISHED = "published"


def escape_latex(text: str) -> str:
    """Escape what LaTeX would read as a command."""
    return "".join(CHARACTERS.get(character, character) for character in text)


def table_environment(spec: str, lines: Sequence[str], caption: str, notes: Sequence[str]) -> str:
    """A ``table`` around the lines of a tabular; one that is too wide is reduced to the width of the text."""
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{escape_latex(caption)}}}\smallskip",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{spec}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            *(rf"\par\smallskip {escape_latex(note)}" for note in notes),
            r"\end{table}",
            "",
        ]
    )


def plain_table(shown: pd.DataFrame, text_columns: set[str], caption: str, notes: Sequence[str]) -> str:
    """Cells as they are; a rule between the values of the first column, each of which appears once."""
    spec = "".join("l" if column in text_columns else "r" for column in shown.columns)
    heading = " & ".join(_heading(str(column)) for column in shown.columns)
    return table_environment(spec, [heading + r" \\", r"\midrule", *_plain_rows(shown)], caption, notes)


def _heading(heading: str) -> str:
    """A heading on two lines where it has two parts, so that wide tables fit."""
    first, space, second = heading.rpartition(", ") if ", " in heading else heading.partition(" ")
    if not space:
        return escape_latex(heading)
    return rf"\begin{{tabular}}[b]{{@{{}}c@{{}}}}{escape_latex(first)}\\{escape_latex(second)}\end{{tabular}}"


def _plain_rows(shown: pd.DataFrame) -> list[str]:
    lines: list[str] = []
    last = ""
    for index, row in enumerate(shown.itertuples(index=False, name=None)):
        first, cells = str(row[0]), [escape_latex(str(cell)) for cell in row]
        if index and first != last:
            lines.append(r"\midrule")
        if first == last:
            cells[0] = ""
        last = first
        lines.append(" & ".join(cells) + r" \\")
    return lines


def grouped_table(
    frame: pd.DataFrame,
    labels: Mapping[str, str],
    metrics: Mapping[str, str],
    caption: str,
    notes: Sequence[str],
) -> str:
    """Methods by data sets, with the published values in a row of their own.

    ``frame`` has a row per (``labels``, data set) with columns ``<metric>_mean``, ``_std``, ``_published``; ``labels``
    and ``metrics`` give the columns to show and their headings. Labels with one value throughout are left out.
    """
    shown = {name: text for name, text in labels.items() if frame[name].nunique() > 1 or name == "model"}
    datasets = list(dict.fromkeys(frame["dataset"]))
    width, first = len(metrics), len(shown) + 1
    spans = [(first + i * width, first + (i + 1) * width - 1) for i in range(len(datasets))]
    groups = " & ".join(rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(name)}}}" for name in datasets)
    headings = [*shown.values(), *(text for _ in datasets for text in metrics.values())]
    lines = [
        "& " * len(shown) + groups + r" \\",
        " ".join(rf"\cmidrule(lr){{{start}-{end}}}" for start, end in spans),
        " & ".join(escape_latex(text) for text in headings) + r" \\",
        r"\midrule",
    ]
    for _, rows in frame.groupby(list(shown), sort=False, dropna=False):
        lines += _method_lines(rows.set_index("dataset"), list(shown), datasets, list(metrics))
    return table_environment("l" * len(shown) + "r" * width * len(datasets), lines, caption, notes)


def _method_lines(rows: pd.DataFrame, labels: list[str], datasets: list[str], metrics: list[str]) -> list[str]:
    names = [escape_latex(str(rows.iloc[0][label])) for label in labels]
    places = [(dataset, metric) for dataset in datasets for metric in metrics]
    ours = [_mean(rows, dataset, metric) for dataset, metric in places]
    papers = [_value(rows, dataset, f"{metric}_published") for dataset, metric in places]
    lines = [" & ".join([*names, *ours]) + r" \\"]
    if any(papers):
        cells = [rf"\textit{{{cell}}}" if cell else "" for cell in papers]
        lines.append(" & ".join([rf"\quad \textit{{{PUBLISHED}}}", *[""] * (len(names) - 1), *cells]) + r" \\")
    return lines


def _mean(rows: pd.DataFrame, dataset: str, metric: str) -> str:
    mean, spread = _value(rows, dataset, f"{metric}_mean"), _value(rows, dataset, f"{metric}_std")
    return rf"{mean} $\pm$ {spread}" if spread else mean


def _value(rows: pd.DataFrame, dataset: Hashable, column: str) -> str:
    value: Any = rows[column].get(dataset) if column in rows else None
    return "" if value is None or pd.isna(value) else f"{float(value):.2f}"
