"""Table 3 of the paper: scores of the mixture."""

import pandas as pd

from dinodp.options.protocol import Protocol
from dinodp.report.tables.rows import DETECTION, compare, detection_headings, published_notes
from dinodp.report.tables.table import PAPER_LABELS, Table

NAME = "table3"


def make(metrics: pd.DataFrame, costs: pd.DataFrame, published: pd.DataFrame, protocol: Protocol) -> Table:
    """Every score of the mixtures, with and without unit length, percent, beside the published values."""
    mixtures = metrics[metrics["family"] == "dpmm"]
    frame = compare(mixtures, published, protocol.published_embedding, DETECTION, NAME)
    caption = "Scores of the mixture, embeddings with and without unit length, in percent. AP, AUPR as in table 1."
    labels = {**PAPER_LABELS, "score": "Score", "normalised": "Unit length"}
    notes = published_notes(frame, published, protocol)
    short = "Scores of the mixture, embeddings with and without unit length, in percent. AUPR as in table 1."
    return Table(frame, caption, notes, short, labels, detection_headings(frame, protocol))
