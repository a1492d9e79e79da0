"""Tables as files: numbers as CSV, text as Markdown and LaTeX."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dinodp.jobs.files import write_text
from dinodp.report.tables.headings import HEADINGS, decimals_of
from dinodp.report.tables.latex import grouped_table, plain_table
from dinodp.report.tables.rows import KEYS
from dinodp.report.tables.table import SPREAD_NOTE, Table

PUBLISHED_NOTE = "In italics: the published value; where the embedding is another, it is not comparable."


def write_table(table: Table, csv_path: Path, md_path: Path, tex_path: Path) -> None:
    """Write the numbers as CSV and the formatted table as Markdown and LaTeX; each file is complete or absent."""
    shown, common = _display(table)
    caption = " ".join([table.caption, *common])
    write_text(csv_path, table.frame.to_csv(index=False, float_format="%.6g"))
    write_text(md_path, _markdown(shown, caption, table.notes))
    write_text(tex_path, _latex(table, shown, common))


def write_sentence(sentence: str, csv_path: Path, md_path: Path, tex_path: Path) -> None:
    """Write what is said in place of a table that has no row."""
    write_text(csv_path, pd.DataFrame({"left_out": [sentence]}).to_csv(index=False))
    write_text(md_path, f"{sentence}\n")
    write_text(tex_path, f"% {sentence}\n")


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
            shown[_comparison_heading(column)] = [
                _number(value, decimals_of(_compared(column)), column) for value in frame[column]
            ]
        elif column not in ("dataset", "model") and frame[column].nunique() == 1:
            common.append(f"{HEADINGS[column]}: {frame[column].iloc[0]}.")
        elif column in HEADINGS:
            shown[HEADINGS[column]] = frame[column].astype(str)
    return shown, [text for text in common if not text.endswith(": .")]


def _with_spread(frame: pd.DataFrame, name: str) -> list[str]:
    decimals = decimals_of(name)
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
    return f"{HEADINGS[_compared(column)]}, {column.rpartition('_')[2]}"


def _compared(column: str) -> str:
    return column.rpartition("_")[0]


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
