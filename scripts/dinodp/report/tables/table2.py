"""Table 2 of the paper: Dice at calibrated thresholds."""

import pandas as pd

from dinodp.options.protocol import Protocol
from dinodp.report.tables.rows import compare, primary_scores, published_notes
from dinodp.report.tables.table import PAPER_LABELS, Table

NAME = "table2"


def make(metrics: pd.DataFrame, costs: pd.DataFrame, published: pd.DataFrame, protocol: Protocol) -> Table:
    """Dice at thresholds calibrated to FPR 10, 5 and 1 %, percent, beside the published values."""
    frame = compare(primary_scores(metrics), published, protocol.published_embedding, protocol.dice_metrics, NAME)
    where = "patches" if protocol.threshold_maps == "patch" else "pixels"
    caption = f"Dice, in percent, at thresholds calibrated to a false positive rate (FPR) on normal validation {where}."
    headings = {name: f"FPR {int(name[-2:])} %" for name in protocol.dice_metrics if f"{name}_mean" in frame}
    return Table(frame, caption, published_notes(frame, published, protocol), caption, PAPER_LABELS, headings)
