"""The one loop over pixels: every map is counted as it comes, then values and resamples follow from the counts."""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from dinodp.metrics.bootstrap import SubjectCounts, coarse_bins
from dinodp.metrics.counts import CountsAbove, CumulativeCounts, Floats
from dinodp.metrics.definitions import at_threshold, metrics_of
from dinodp.metrics.histograms import Map, ScoreBins, ScoreHistograms
from dinodp.metrics.thresholds import ThresholdCounts

RESAMPLES_PER_CHUNK = 100  # a block of weighted histograms is [100, 4096] float64 per kind of pixel
Flags = npt.NDArray[np.bool_]


class PixelCounter:
    """Counts of all pixels of a test set, and of each of ``n_subjects`` apart (0: none, and no resamples).

    ``scores``: the patch scores, or a sample of all pixels with both extremes: they place the bins.
    """

    def __init__(self, scores: Map, thresholds: Mapping[str, float], n_subjects: int = 0) -> None:
        self.histograms = ScoreHistograms.empty(ScoreBins.of(scores))
        self.above = ThresholdCounts(thresholds, max(n_subjects, 1))
        self.subjects: SubjectCounts | None = None
        if n_subjects:
            self.subjects = SubjectCounts.empty(coarse_bins(self.histograms.bins, scores), n_subjects)

    def add(self, scores: Map, anomalous: Flags, subject: int = 0, counted: Flags | None = None) -> None:
        """Count one map, float32 [H, W]: its ``anomalous`` pixels, and of the others the ``counted`` (None: all)."""
        binned = self.histograms.update(scores, anomalous, counted)
        self.above.update(subject, scores, anomalous, counted)
        if self.subjects is not None:
            self.subjects.update(subject, binned)

    def values(self) -> dict[str, float]:
        """Metrics by name; none where all pixels are of one class."""
        if not self.histograms.anomalous.any() or not self.histograms.normal.any():
            return {}
        once = np.ones(len(self.above.anomalous))
        found = self._metrics(self.histograms.cumulative(), self.above.weighted(once))
        return {name: float(value) for name, value in found.items()}

    def replicates(self, weights: Floats) -> dict[str, Floats]:
        """Metrics of every resample, by name, each [resample]; ``weights`` [resample, subject]."""
        if self.subjects is None or not len(weights):
            return {}
        parts = [self._metrics(self.subjects.weighted(part), self.above.weighted(part)) for part in _chunks(weights)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _metrics(self, counts: CumulativeCounts, above: CountsAbove) -> dict[str, Floats]:
        found = {name: metric.compute(counts) for name, metric in metrics_of("pixels").items()}
        for name, metric in metrics_of("thresholds").items():
            values = np.moveaxis(metric.compute(above), -1, 0)
            found |= {
                at_threshold(name, threshold): part for threshold, part in zip(self.above.names, values, strict=True)
            }
        return found


def _chunks(weights: Floats) -> Iterable[Floats]:
    return (weights[first : first + RESAMPLES_PER_CHUNK] for first in range(0, len(weights), RESAMPLES_PER_CHUNK))
