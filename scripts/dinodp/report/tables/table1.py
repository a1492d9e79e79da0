"""Table 1 of the paper: pixel-wise detection."""

import pandas as pd

from dinodp.options.protocol import AUPR_NAMES, Protocol
from dinodp.report.tables.rows import DETECTION, compare, detection_headings, primary_scores, published_notes
from dinodp.report.tables.table import PAPER_LABELS, Table

NAME = "table1"


def make(metrics: pd.DataFrame, costs: pd.DataFrame, published: pd.DataFrame, protocol: Protocol) -> Table:
    """Pixel AUROC and AUPR of each model's primary score, percent, beside the published values."""
    frame = compare(primary_scores(metrics), published, protocol.published_embedding, DETECTION, NAME)
    caption = "Pixel-wise detection of anomalies, in percent. AP: average precision; AUPR: trapezoid, as published."
    notes = published_notes(frame, published, protocol)
    short = f"Pixel-wise detection of anomalies, in percent. AUPR: {AUPR_NAMES[protocol.aupr]}."
    return Table(frame, caption, notes, short, PAPER_LABELS, detection_headings(frame, protocol))
