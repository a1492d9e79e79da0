"""Counts of all maps under one mask rule and one choice of pixels."""

from collections.abc import Collection, Iterator, Mapping

import numpy as np

from dinodp.evaluation.bias import HealthyShares
from dinodp.metrics.bootstrap import Bootstrap
from dinodp.metrics.counts import Floats
from dinodp.metrics.lesions import LesionCounter, region_thresholds
from dinodp.metrics.pixels import PixelCounter
from dinodp.scans.measuring.conventions import EACH_IMAGE, EACH_SCAN, HEALTHY, LESIONS, POOLED, Choices, Found, Key
from dinodp.scans.measuring.image_scores import ImageLabels
from dinodp.scans.measuring.masked import MaskedScan
from dinodp.scans.measuring.scored import Flags, Map


class Means:
    """Mean of each metric over images or scans with a lesion, and over those of resampled subjects."""

    def __init__(self, n_subjects: int) -> None:
        self.n_subjects = n_subjects
        self.sums: dict[str, Floats] = {}
        self.counts: dict[str, Floats] = {}

    def add(self, subject: int, values: Mapping[str, float]) -> None:
        """Take the metrics of one image."""
        for name, value in values.items():
            self.sums.setdefault(name, np.zeros(self.n_subjects))[subject] += value
            self.counts.setdefault(name, np.zeros(self.n_subjects))[subject] += 1

    def found(self, weights: Floats) -> Iterator[tuple[str, float, Floats]]:
        """Name, mean, and mean in each resample (NaN where it has no such image)."""
        for name, sums in self.sums.items():
            sampled, counts = weights @ sums, weights @ self.counts[name]
            replicates = np.divide(sampled, counts, out=np.full(len(weights), np.nan), where=counts > 0)
            yield name, float(sums.sum() / self.counts[name].sum()), replicates


class ConventionCounter:
    """One mask rule and one choice of pixels; ``sample`` of the scores that count places bins and FROC thresholds."""

    def __init__(
        self, rule: str, pixels: str, sample: Map, thresholds: Mapping[str, float], n_subjects: int, choices: Choices,
        *, with_lesions: bool,
    ) -> None:  # fmt: skip
        self.rule, self.pixels = rule, pixels
        self.thresholds = {f"threshold_{name}": value for name, value in thresholds.items()}
        self.pooled = PixelCounter(sample, self.thresholds, n_subjects)
        self.means = {EACH_IMAGE: Means(n_subjects), EACH_SCAN: Means(n_subjects)}
        self.lesions = LesionCounter(region_thresholds(sample), n_subjects) if with_lesions else None
        self.images = ImageLabels(choices.image_scores, choices.top_fraction)
        self.anomalous: set[int] = set()
        self.shares, self.healthy = HealthyShares(self.thresholds, choices.n_resamples), list[int]()

    def add(self, scan: MaskedScan, subject: int, number: int) -> None:
        """Count one scan, the one of this ``number``, of a subject (its index)."""
        lesion, counted = scan.lesion(self.rule), scan.counted(self.pixels)
        scores = np.where(scan.scan.scored, scan.scores, -np.inf).astype(np.float32)
        held = np.flatnonzero((counted | lesion).any(axis=(1, 2)))
        for index in held:
            self.pooled.add(scores[index], lesion[index], subject, counted[index])
        self.images.add(scan, self.rule, self.pixels, subject)
        if self.lesions is not None:
            maps = (scores, lesion, counted) if scan.scan.is_volume else (scores[0], lesion[0], counted[0])
            self.lesions.add(maps[0], maps[1], subject, maps[2])
        if lesion.any():
            self.anomalous.add(subject)
            self._average(scan, scores, lesion, counted, subject)
        else:
            self.shares.add(scores[counted], str(subject))
            self.healthy.append(number)

    def _average(self, scan: MaskedScan, scores: Map, lesion: Flags, counted: Flags, subject: int) -> None:
        slices = np.flatnonzero(lesion.any(axis=(1, 2)))
        for index in slices:
            self.means[EACH_IMAGE].add(subject, self._alone(scores, lesion, counted, [int(index)]))
        if scan.scan.is_volume:
            held = np.flatnonzero((counted | lesion).any(axis=(1, 2))).tolist()
            self.means[EACH_SCAN].add(subject, self._alone(scores, lesion, counted, held))

    def _alone(self, scores: Map, lesion: Flags, counted: Flags, slices: list[int]) -> dict[str, float]:
        """Metrics of some slices by themselves; none where one class of pixels is missing or nothing was scored."""
        values = scores[slices][(counted | lesion)[slices]]
        values = values[np.isfinite(values)]
        if not len(values):
            return {}
        counter = PixelCounter(values, self.thresholds)
        for index in slices:
            counter.add(scores[index], lesion[index], 0, counted[index])
        return counter.values()

    def shares_of(self, groups: Mapping[str, Collection[int]]) -> Iterator[tuple[Key, Found]]:
        """The share of the pixels above each threshold of the healthy scans among those of each group."""
        for group, members in groups.items():
            rows = [row for row, number in enumerate(self.healthy) if number in members]
            n_subjects = len({self.shares.subjects[row] for row in rows})
            for name, value, replicates in self.shares.resampled(rows):
                yield Key(name, self.rule, self.pixels, HEALTHY, group=group), Found(value, replicates, n_subjects)

    def found(self, bootstrap: Bootstrap) -> Iterator[tuple[Key, Found]]:
        """Every metric under this convention."""
        weights, n_subjects = bootstrap.weights, len(self.anomalous)
        prevalence = self.pooled.histograms.prevalence
        yield Key("prevalence", self.rule, self.pixels, POOLED), Found(prevalence, None, n_subjects)
        for name, threshold in self.thresholds.items():
            yield Key(name, self.rule, self.pixels, POOLED), Found(threshold, None, n_subjects)
        replicates = self.pooled.replicates(weights)
        for name, value in self.pooled.values().items():
            yield Key(name, self.rule, self.pixels, POOLED), Found(value, replicates.get(name), n_subjects)
        for over, means in self.means.items():
            for name, value, sampled in means.found(weights):
                yield Key(name, self.rule, self.pixels, over), Found(value, sampled, n_subjects)
        for name, score, value, resampled in self.images.evaluate(weights):
            yield Key(name, self.rule, self.pixels, "scans" if name.startswith("scan") else "slices", score), Found(
                value, resampled, n_subjects
            )
        if self.lesions is not None:
            replicates = self.lesions.replicates(weights)
            for name, value in self.lesions.values().items():
                yield Key(name, self.rule, self.pixels, LESIONS), Found(value, replicates.get(name), n_subjects)
