"""Scores of whole images, slices and scans by stated rules, and their AUROC."""

from dataclasses import dataclass, field

import numpy as np

from dinodp.metrics.bootstrap import Bootstrap
from dinodp.metrics.counts import Floats
from dinodp.metrics.streaming import image_metrics
from dinodp.scans.measuring.masked import MaskedScan
from dinodp.scans.measuring.scored import Map

RULES = {"max": "the highest pixel", "mean": "the mean of the pixels", "top-fraction": "the mean of the highest pixels"}
RECORDED = "recorded"  # by the tool that made the maps


def score_of(values: Map, rule: str, fraction: float) -> float:
    """Score of the pixels [n] by a rule of ``RULES``; ``top-fraction``: of the highest ``fraction``, at least one."""
    if rule == "max":
        return float(values.max())
    if rule == "mean":
        return float(values.mean(dtype=np.float64))
    count = max(1, int(len(values) * fraction))
    return float(np.partition(values, len(values) - count)[-count:].mean(dtype=np.float64))


@dataclass
class ImageLabels:
    """Scores by rule, labels and subjects of whole scans, and of the slices of volumes."""

    rules: tuple[str, ...]
    fraction: float
    subjects: dict[str, list[int]] = field(default_factory=lambda: {"scan": [], "slice": []})
    anomalous: dict[str, list[bool]] = field(default_factory=lambda: {"scan": [], "slice": []})
    scores: dict[str, dict[str, list[float]]] = field(default_factory=lambda: {"scan": {}, "slice": {}})

    def add(self, scan: MaskedScan, mask_rule: str, pixels: str, subject: int) -> None:
        """Take one scan and the slices of a volume in which a pixel counts; of a tool's own scores those it has."""
        lesion, counted = scan.lesion(mask_rule), scan.counted(pixels) & scan.scan.scored
        self._add("scan", subject, bool(lesion.any()), scan.scores[counted], scan.scan.score)
        if not scan.scan.is_volume:
            return
        known = scan.scan.slice_scores
        for index in known or np.flatnonzero(counted.any(axis=(1, 2))).tolist():
            values = scan.scores[index][counted[index]]
            self._add("slice", subject, bool(lesion[index].any()), values, known.get(index))

    def _add(self, what: str, subject: int, anomalous: bool, values: Map, recorded: float | None) -> None:
        if not len(values) and recorded is None:
            return
        self.subjects[what].append(subject)
        self.anomalous[what].append(anomalous)
        found = {} if recorded is None else {RECORDED: recorded}
        if len(values):
            found |= {rule: score_of(values, rule, self.fraction) for rule in self.rules}
        for rule, score in found.items():
            self.scores[what].setdefault(rule, []).append(score)

    def evaluate(self, weights: Floats) -> list[tuple[str, str, float, Floats | None]]:
        """Metric, rule, value and replicates, where both kinds of images occur and each has a score by the rule."""
        found: list[tuple[str, str, float, Floats | None]] = []
        for what, by_rule in self.scores.items():
            truth = np.asarray(self.anomalous[what], dtype=bool)
            bootstrap = Bootstrap(np.asarray(self.subjects[what], dtype=np.int64), weights)
            for rule, scores in by_rule.items():
                if len(scores) == len(truth):
                    values, replicates = image_metrics(np.asarray(scores, dtype=np.float32), truth, bootstrap)
                    found += [
                        (name.replace("image", what, 1), rule, value, replicates.get(name))
                        for name, value in values.items()
                    ]
        return found
