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
from dinodp.metrics.histograms import N_BINS, BinnedMap, Floats, ScoreBins

N_COARSE = 4096
RESAMPLES_PER_CHUNK = 100  # a block of weighted histograms is [100, 4096] float64 per kind of pixel
AUPRO_LIMIT = 0.3
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


@dataclass
class SubjectCounts:
    """Per subject: pixels per coarse bin, region weight, and the counts behind Dice at each threshold.

    ``normal``, ``anomalous``, ``region_weight`` [subject, bin]; ``n_regions`` [subject]; ``true_positives`` and
    ``positives`` [subject, threshold].
    """

    coarse: npt.NDArray[np.int32]
    normal: Counts
    anomalous: Counts
    region_weight: Counts
    n_regions: Counts
    true_positives: Counts
    positives: Counts

    @classmethod
    def empty(cls, coarse: npt.NDArray[np.int32], n_subjects: int, n_thresholds: int) -> Self:
        """Counts of no pixel."""
        normal, anomalous, region_weight = np.zeros((3, n_subjects, int(coarse.max()) + 1))
        true_positives, positives = np.zeros((2, n_subjects, n_thresholds))
        return cls(coarse, normal, anomalous, region_weight, np.zeros(n_subjects), true_positives, positives)

    def update(self, subject: int, binned: BinnedMap, anomalous: npt.NDArray[np.bool_]) -> None:
        """Count one map whose pixels lie in fine bins, with its ``anomalous`` pixels [H, W]."""
        n_bins = self.normal.shape[1]
        bins = self.coarse[binned.bins]
        inside = bins[anomalous]
        counts = np.bincount(inside, minlength=n_bins)
        self.normal[subject] += np.bincount(bins.ravel(), minlength=n_bins) - counts
        self.anomalous[subject] += counts
        self.region_weight[subject] += np.bincount(inside, weights=binned.region_weight, minlength=n_bins)
        self.n_regions[subject] += binned.n_regions

    def update_thresholds(self, subject: int, true_positives: Sequence[int], positives: Sequence[int]) -> None:
        """Count pixels above each threshold of one map."""
        self.true_positives[subject] += true_positives
        self.positives[subject] += positives


def pixel_replicates(counts: SubjectCounts, weights: Counts, thresholds: Sequence[str]) -> dict[str, Floats]:
    """Pixel metrics of every resample, by name, each [resample]; ``thresholds`` name the Dice values."""
    parts = [_chunk_metrics(counts, chunk, thresholds) for chunk in _chunks(weights)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _chunks(weights: Counts) -> list[Counts]:
    return [weights[first : first + RESAMPLES_PER_CHUNK] for first in range(0, len(weights), RESAMPLES_PER_CHUNK)]


def _chunk_metrics(counts: SubjectCounts, weights: Counts, thresholds: Sequence[str]) -> dict[str, Floats]:
    false, true, region = (
        np.cumsum((weights @ histogram)[:, ::-1], axis=1)
        for histogram in (counts.normal, counts.anomalous, counts.region_weight)
    )
    positives = true[:, -1:]
    fpr, tpr = _from_zero(false / false[:, -1:]), _from_zero(true / positives)
    precision = true / np.maximum(true + false, 1)
    steps, rise = np.diff(tpr, axis=1), np.concatenate([precision[:, :1], precision], axis=1)
    overlap = _from_zero(region / (weights @ counts.n_regions)[:, None])
    true_above, above = weights @ counts.true_positives, weights @ counts.positives
    dice = 2 * true_above / (above + positives)
    return {
        "pixel_auroc": np.trapezoid(tpr, fpr, axis=1),
        "pixel_average_precision": _average_precision(true, false, positives),
        "pixel_aupr_trapezoid": np.sum(steps * (rise[:, 1:] + rise[:, :-1]) / 2, axis=1),
        "aupro_30": np.array([_partial_area(x, y) for x, y in zip(fpr, overlap, strict=True)]),
        "max_dice": np.max(2 * true / (true + false + positives), axis=1),
        **{name: dice[:, index] for index, name in enumerate(thresholds)},
    }


def _average_precision(true: Counts, false: Counts, positives: Counts) -> Floats:
    """Sum over anomalous pixels of the precision there; within a coarse bin, of its middle (a pixel counts itself)."""
    step = np.diff(_from_zero(true), axis=1)
    true_middle, false_middle = true - (step - 1) / 2, false - np.diff(_from_zero(false), axis=1) / 2
    precision = true_middle / np.maximum(true_middle + false_middle, 1e-12)
    area: Floats = np.sum(step * precision, axis=1) / positives[:, 0]
    return area


def _from_zero(values: Counts) -> Counts:
    return np.concatenate([np.zeros_like(values[:, :1]), values], axis=1)


def _partial_area(fpr: Floats, overlap: Floats) -> float:
    """Area under the overlap up to the limit, over the limit."""
    inside = fpr <= AUPRO_LIMIT
    x = np.append(fpr[inside], AUPRO_LIMIT)
    y = np.append(overlap[inside], np.interp(AUPRO_LIMIT, fpr, overlap))
    return float(np.trapezoid(y, x) / AUPRO_LIMIT)


def image_auroc_replicates(
    scores: Map, labels: npt.NDArray[np.bool_], subjects: npt.NDArray[np.int64], weights: Counts
) -> Floats:
    """Image AUROC of every resample [resample]; an image weighs as often as its subject occurs. Ties count one half."""
    order = np.argsort(scores, kind="stable")
    scores, labels, image_weights = scores[order], labels[order], weights[:, subjects[order]]
    positive, negative = image_weights * labels, image_weights * ~labels
    below = np.cumsum(negative, axis=1) - negative
    first = np.searchsorted(scores, scores, side="left")
    last = np.searchsorted(scores, scores, side="right") - 1
    lower = below[:, first]
    tied = below[:, last] + negative[:, last] - lower
    wins = np.sum(positive * (lower + tied / 2), axis=1)
    auroc: Floats = wins / (positive.sum(axis=1) * negative.sum(axis=1))
    return auroc
