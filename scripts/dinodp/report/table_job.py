"""Tables from the run's files, and the page that gathers them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from dinodp.errors import NothingToShow, require_known
from dinodp.jobs.files import write_text
from dinodp.jobs.logs import logger
from dinodp.jobs.origin import read_table
from dinodp.options.protocol import Protocol, read_published
from dinodp.report.tables import TABLES
from dinodp.report.tables.writing import write_sentence, write_table


def make_table(
    name: str,
    metrics: Path,
    costs: Path,
    published: Path,
    csv: Path,
    md: Path,
    tex: Path,
    *,
    protocol: Protocol,
) -> None:
    """Make one table of the registry from metrics.csv, costs.csv and published.csv; a sentence where it has no row.

    Raises InputError for an unknown table, and for metrics or costs that are not as they were written.
    """
    require_known("table", name, TABLES)
    measured = read_table(metrics, keep_default_na=False, dtype={"normalised": str})
    measured = measured[measured["mask_rule"] == protocol.mask_rule]
    try:
        table = TABLES[name](measured, read_table(costs), read_published(published, protocol), protocol)
    except NothingToShow as reason:
        logger.warning("%s It is left out.", reason)
        write_sentence(f"Left out: {reason}", csv, md, tex)
        return
    write_table(replace(table, notes=(*table.notes, *_without_row(table.frame, measured))), csv, md, tex)


def _without_row(shown: pd.DataFrame, measured: pd.DataFrame) -> list[str]:
    """A note on the data sets of the run that have no row in a table."""
    missing = sorted(set(measured["dataset"]) - set(shown["dataset"])) if "dataset" in shown else []
    return [f"Left out, as there is no such value of them: {', '.join(missing)}."] if missing else []


def summarise(title: str, note: str, tables: Sequence[Path], path: Path) -> None:
    """Gather Markdown tables on one page under a title and the note that says what they show."""
    parts = [f"# {title}", note, *(table.read_text(encoding="utf-8").strip() for table in tables)]
    write_text(path, "\n\n".join(parts) + "\n")
