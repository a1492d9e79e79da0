"""How many lesions are found before too many false regions occur (`run.lesions`, or data sets with boxes)."""

import pandas as pd

from dinodp.metrics.definitions import names_of
from dinodp.options.protocol import Protocol
from dinodp.report.tables.rows import compare, primary_scores
from dinodp.report.tables.table import SPREAD_NOTE, Table

NAME = "lesions"
RULE_NOTE = (
    "A lesion is found where a region above the threshold overlaps it; a region that overlaps none is false. Every "
    "image is a scan by itself, also the slices of a volume."
)


def make(metrics: pd.DataFrame, costs: pd.DataFrame, published: pd.DataFrame, protocol: Protocol) -> Table:
    """Lesions found of each model's primary score, percent."""
    frame = compare(primary_scores(metrics), published, protocol.published_embedding, names_of("lesions"), NAME)
    caption = "Lesions found at most at so many false regions per image (FROC), in percent."
    return Table(frame, caption, (SPREAD_NOTE, RULE_NOTE))
