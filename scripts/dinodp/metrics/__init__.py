"""Metrics over all pixels of a test split, pooled, computed in a stream."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dinodp.metrics.bootstrap import Bootstrap
    from dinodp.metrics.streaming import Evaluation, evaluate, evaluate_stream

__all__ = ["Bootstrap", "Evaluation", "evaluate", "evaluate_stream"]


def __getattr__(name: str) -> Any:
    """Import what computes only when it is asked for: a table needs the headings of the metrics, but no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("dinodp.metrics.streaming"), name)
