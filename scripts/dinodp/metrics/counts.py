"""What a metric is made of: counts of pixels above thresholds, each with or without a leading axis of resamples."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CumulativeCounts:
    """Pixels at and above each threshold, the highest first: float64 [..., threshold], a leading axis of resamples.

    ``region_weight``: sum over the anomalous ones of 1 / area of their region; ``n_regions`` [...]. ``tied``: pixels
    between two thresholds share a score, as in fine bins; those of a coarse bin differ.
    """

    false_positives: Floats
    true_positives: Floats
    region_weight: Floats
    n_regions: Floats
    tied: bool

    @property
    def anomalous(self) -> Floats:
        """Number of anomalous pixels, [..., 1]."""
        return self.true_positives[..., -1:]

    def fpr(self) -> Floats:
        """False positive rate from 0 (no pixel) to 1, [..., 1 + threshold]."""
        return _from_zero(_share(self.false_positives, self.false_positives[..., -1:]))

    def recall(self) -> Floats:
        """True positive rate from 0 to 1, [..., 1 + threshold]."""
        return _from_zero(_share(self.true_positives, self.anomalous))

    def coverage(self) -> Floats:
        """Mean share of a region that is covered, from 0 to 1, [..., 1 + threshold]."""
        return _from_zero(_share(self.region_weight, self.n_regions[..., None]))

    def precision(self) -> Floats:
        """Precision, [..., 1 + threshold]; of no pixel it is 1, or in coarse bins that of the first."""
        found = self.true_positives / np.maximum(self.true_positives + self.false_positives, 1)
        start = np.ones_like(found[..., :1]) if self.tied else found[..., :1]
        return np.concatenate([start, found], axis=-1)

    def precision_of_bins(self) -> Floats:
        """Precision at the pixels of each bin, [..., threshold]: the end of a fine bin, the middle of a coarse."""
        if self.tied:
            return self.precision()[..., 1:]
        steps, false_steps = (np.diff(_from_zero(counts)) for counts in (self.true_positives, self.false_positives))
        true = self.true_positives - (steps - 1) / 2  # a pixel counts itself
        false = self.false_positives - false_steps / 2
        middle: Floats = true / np.maximum(true + false, 1e-12)
        return middle

    def mean_over_anomalous(self, values: Floats) -> Floats:
        """Mean [...] over the anomalous pixels of a value of each bin [..., threshold]."""
        if self.tied:  # as scikit-learn sums it
            return np.asarray(np.sum(np.diff(self.recall()) * values, axis=-1))
        steps = np.diff(_from_zero(self.true_positives))
        return np.asarray(np.sum(steps * values, axis=-1) / self.anomalous[..., 0])


@dataclass(frozen=True)
class CountsAbove:
    """Pixels above fixed thresholds (strictly greater): float64 [..., threshold]; ``anomalous`` [..., 1] in all."""

    true_positives: Floats
    positives: Floats
    anomalous: Floats


def _share(part: Floats, whole: Floats) -> Floats:
    """NaN where a resample has no such pixel or region."""
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0))


def _from_zero(values: Floats) -> Floats:
    return np.concatenate([np.zeros_like(values[..., :1]), values], axis=-1)
