"""Bootstrap over subjects (Efron & Tibshirani, 1993) without upsampling anything again.

While the maps stream by, each subject's pixels are counted in bins; a resample of subjects is then a weighted sum of
their histograms, and all resamples together are one matrix product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from dinodp.errors import InputError
from dinodp.metrics.counts import CumulativeCounts
from dinodp.metrics.histograms import N_BINS, BinnedMap, ScoreBins

N_COARSE = 4096
Map = npt.NDArray[np.float32]
Counts = npt.NDArray[np.float64]


def resampling_weights(anomalous: Sequence[bool] | npt.NDArray[np.bool_], n_resamples: int, seed: int = 0) -> Counts:
    """How often each subject occurs in each resample, [resample, subject].

    Subjects with and without anomalies are resampled apart, so that every metric is defined in every resample. The same
    subjects, number and seed give the same weights: that is what pairs two models. Raises InputError for no subject.
    """
    labels = np.asarray(anomalous, dtype=bool)
    if not len(labels):
        raise InputError("A bootstrap needs at least one test subject.")
    generator = np.random.default_rng(seed)
    weights = np.zeros((n_resamples, len(labels)))
    for stratum in (labels, ~labels):
        if count := int(stratum.sum()):
            weights[:, stratum] = generator.multinomial(count, np.full(count, 1 / count), size=n_resamples)
    return weights


def coarse_bins(bins: ScoreBins, patch_maps: Map) -> npt.NDArray[np.int32]:
    """Coarse bin of each fine bin [N_BINS]: half of them hold equal shares of the patch scores, half resolve the top.

    Anomalies are few and score high, so the quantiles are spaced evenly up to 1 and geometrically towards it.
    """
    even = np.linspace(0, 1, N_COARSE // 2, endpoint=False)
    top = 1 - np.geomspace(1, 1e-6, N_COARSE // 2)
    quantiles = np.quantile(np.asarray(patch_maps, dtype=np.float64).ravel(), np.unique(np.concatenate([even, top])))
    edges = np.unique(bins.index(quantiles.astype(np.float32)))
    return np.searchsorted(edges[1:], np.arange(N_BINS), side="right").astype(np.int32)


@dataclass(frozen=True)
class Bootstrap:
    """The subject of each test image [n] (an index), and how often each subject occurs in each resample."""

    subjects: npt.NDArray[np.int64]
    weights: Counts

    @classmethod
    def of(cls, subjects: Sequence[str], labels: npt.NDArray[np.bool_], n_resamples: int) -> Self:
        """Resamples of the subjects named per image; one with an anomalous image (``labels`` [n]) is anomalous."""
        names, index = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
        anomalous = np.bincount(index, weights=labels, minlength=len(names)) > 0
        return cls(index.astype(np.int64), resampling_weights(anomalous, n_resamples))


@dataclass
class SubjectCounts:
    """Pixels per coarse bin and region weight [subject, bin], and ``n_regions`` [subject], of each subject."""

    coarse: npt.NDArray[np.int32]
    normal: Counts
    anomalous: Counts
    region_weight: Counts
    n_regions: Counts

    @classmethod
    def empty(cls, coarse: npt.NDArray[np.int32], n_subjects: int) -> Self:
        """Counts of no pixel."""
        normal, anomalous, region_weight = np.zeros((3, n_subjects, int(coarse.max()) + 1))
        return cls(coarse, normal, anomalous, region_weight, np.zeros(n_subjects))

    def update(self, subject: int, binned: BinnedMap) -> None:
        """Count one map whose pixels lie in fine bins."""
        n_bins = self.normal.shape[1]
        inside = self.coarse[binned.anomalous]
        counts = np.bincount(inside, minlength=n_bins)
        self.normal[subject] += np.bincount(self.coarse[binned.counted], minlength=n_bins) - counts
        self.anomalous[subject] += counts
        self.region_weight[subject] += np.bincount(inside, weights=binned.region_weight, minlength=n_bins)
        self.n_regions[subject] += binned.n_regions

    def weighted(self, weights: Counts) -> CumulativeCounts:
        """Counts of resamples in which the subjects occur ``weights`` [resample, subject] times."""
        normal, anomalous, region_weight = (
            np.cumsum((weights @ histogram)[:, ::-1], axis=1)
            for histogram in (self.normal, self.anomalous, self.region_weight)
        )
        return CumulativeCounts(normal, anomalous, region_weight, weights @ self.n_regions, tied=False)
