"""Metrics over all pixels of a test split, pooled, computed in a stream."""

from dinodp.metrics.histograms import ScoreBins, ScoreHistograms
from dinodp.metrics.streaming import Bootstrap, Evaluation, evaluate, evaluate_stream

__all__ = ["Bootstrap", "Evaluation", "ScoreBins", "ScoreHistograms", "evaluate", "evaluate_stream"]
