"""What a table is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from dinodp.options.protocol import Protocol

PAPER_LABELS = {"embedding": "Embedding", "model": "Method"}
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


MakeTable = Callable[[pd.DataFrame, pd.DataFrame, pd.DataFrame, Protocol], Table]
