"""False positives on healthy images: which share of their pixels exceeds a threshold, in each group."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dinodp.evaluation.intervals import interval
from dinodp.metrics.bootstrap import Bootstrap

Rows = Sequence[int] | npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
HEALTHY = "healthy_share_above"  # start of the metric's name


class HealthyShares:
    """Pixels of healthy images, and those above each threshold, image by image with its subject."""

    def __init__(self, thresholds: Mapping[str, float], n_resamples: int) -> None:
        self.thresholds, self.n_resamples = dict(thresholds), n_resamples
        self.above: list[list[int]] = []
        self.pixels: list[int] = []
        self.subjects: list[str] = []

    def add(self, scores: npt.NDArray[np.float32], subject: str) -> None:
        """Count the pixels (of any shape) of one healthy image."""
        self.above.append([int(np.count_nonzero(scores > value)) for value in self.thresholds.values()])
        self.pixels.append(scores.size)
        self.subjects.append(subject)

    def found(self, rows: Rows) -> Iterator[tuple[str, float, tuple[object, object]]]:
        """Metric, value and interval over subjects of the healthy images ``rows``; nothing where there is none."""
        n_subjects = len({self.subjects[row] for row in rows})
        for name, value, replicates in self.resampled(rows):
            yield name, value, interval(value, replicates, n_subjects)

    def resampled(self, rows: Rows) -> Iterator[tuple[str, float, Floats]]:
        """Metric, value, and values of resamples of the subjects of the healthy images ``rows``."""
        if not len(rows) or not self.thresholds:
            return
        subjects = [self.subjects[row] for row in rows]
        bootstrap = Bootstrap.of(subjects, np.zeros(len(rows), dtype=bool), max(self.n_resamples, 1))
        weights = bootstrap.weights[:, bootstrap.subjects]
        pixels = np.asarray([self.pixels[row] for row in rows], dtype=float)
        above = np.asarray([self.above[row] for row in rows], dtype=float)
        for index, name in enumerate(self.thresholds):
            value = float(above[:, index].sum() / pixels.sum())
            replicates = (weights @ above[:, index]) / (weights @ pixels)
            yield metric_name(name), value, replicates[: self.n_resamples]


def metric_name(threshold: str) -> str:
    """``threshold_fpr05`` gives ``healthy_share_above_fpr05``."""
    return f"{HEALTHY}_{threshold.removeprefix('threshold_')}"
