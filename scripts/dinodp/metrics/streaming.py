"""All metrics of a test split in one pass over its masks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Self

import numpy as np
import numpy.typing as npt

from dinodp.errors import InputError, require_known
from dinodp.images import image_score
from dinodp.metrics.anomaly_maps import anomaly_map
from dinodp.metrics.aupro import aupro
from dinodp.metrics.bootstrap import (
    SubjectCounts,
    coarse_bins,
    image_auroc_replicates,
    pixel_replicates,
    resampling_weights,
)
from dinodp.metrics.dice import DiceAtThresholds, calibrated_thresholds, full_resolution_thresholds, max_dice
from dinodp.metrics.histograms import ScoreBins, ScoreHistograms
from dinodp.metrics.ranking import curves, pixel_aupr_trapezoid, pixel_auroc, pixel_average_precision

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]
MASK_RULES = {"gt0": lambda mask: mask > 0, "eq255": lambda mask: mask == 255}
PIXEL_METRICS = {
    "pixel_auroc": pixel_auroc,
    "pixel_average_precision": pixel_average_precision,
    "pixel_aupr_trapezoid": pixel_aupr_trapezoid,
    "aupro_30": aupro,
    "max_dice": max_dice,
}


@dataclass
class Evaluation:
    """Metrics by name (fractions), curves for drawing, metrics of every resample of subjects (may be empty).

    ``n_subjects``: how many subjects have an anomaly, where that was counted.
    """

    values: dict[str, float]
    curves: dict[str, npt.NDArray[np.floating]] = field(default_factory=dict)
    replicates: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    n_subjects: int = 0


@dataclass(frozen=True)
class Bootstrap:
    """The subject of each test image [n] (an index), and how often each subject occurs in each resample."""

    subjects: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]

    @classmethod
    def of(cls, subjects: Sequence[str], labels: npt.NDArray[np.bool_], n_resamples: int) -> Self:
        """Resamples of the subjects named per image; one with an anomalous image (``labels`` [n]) is anomalous."""
        names, index = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
        anomalous = np.bincount(index, weights=labels, minlength=len(names)) > 0
        return cls(index.astype(np.int64), resampling_weights(anomalous, n_resamples))


def evaluate(
    patch_maps: Map,
    masks: Iterable[Mask] | None,
    validation_normal_patch_maps: Map,
    mask_rule: str = "gt0",
    *,
    image_labels: Sequence[bool] | npt.NDArray[np.bool_] | None = None,
    smoothing_sigma: float = 0.0,
) -> dict[str, float]:
    """Metrics by name of patch scores [n, row, col]; see ``evaluate_stream``."""
    return evaluate_stream(
        patch_maps,
        masks,
        validation_normal_patch_maps,
        mask_rule,
        image_labels=image_labels,
        smoothing_sigma=smoothing_sigma,
    ).values


def evaluate_stream(
    patch_maps: Map,
    masks: Iterable[Mask] | None,
    validation_normal_patch_maps: Map,
    mask_rule: str = "gt0",
    *,
    image_labels: Sequence[bool] | npt.NDArray[np.bool_] | None = None,
    smoothing_sigma: float = 0.0,
    bootstrap: Bootstrap | None = None,
    validation_sizes: Sequence[tuple[int, int]] | None = None,
    image_score_fraction: float = 0.01,
) -> Evaluation:
    """Evaluate patch scores float32 [n, row, col] against ``masks``, uint8 [H, W], read one at a time.

    With ``validation_sizes`` (height, width of each validation image) there are also thresholds calibrated at full
    resolution, and Dice at them. Without masks only image metrics are given; they need ``image_labels`` [n] (default:
    has an anomalous pixel). What is not defined (no anomalous pixel, one class of images) is absent: never zero, never
    NaN.
    Raises InputError for scores that are not finite, other shapes, or masks that are fewer or more than the maps.
    """
    require_known("mask rule", mask_rule, MASK_RULES)
    scores = np.asarray(patch_maps, dtype=np.float32)
    if scores.ndim != 3:
        raise InputError(f"Patch maps have shape {scores.shape}; [image, row, col] is needed.")
    result = Evaluation(calibrated_thresholds(validation_normal_patch_maps))
    if validation_sizes is not None:
        maps = validation_normal_patch_maps
        result.values.update(full_resolution_thresholds(maps, validation_sizes, smoothing_sigma))
    if masks is not None:
        labels = _evaluate_pixels(scores, masks, mask_rule, smoothing_sigma, result, bootstrap)
        image_labels = labels if image_labels is None else image_labels
    if image_labels is not None:
        _evaluate_images(
            image_score(scores, image_score_fraction), np.asarray(image_labels, dtype=bool), result, bootstrap
        )
    return result


def _evaluate_pixels(
    scores: Map,
    masks: Iterable[Mask],
    mask_rule: str,
    smoothing_sigma: float,
    result: Evaluation,
    bootstrap: Bootstrap | None,
) -> npt.NDArray[np.bool_]:
    """Add pixel metrics, curves and replicates to ``result``; return which images have an anomalous pixel."""
    histograms = ScoreHistograms.empty(ScoreBins.of(scores))
    dice = DiceAtThresholds(dict(result.values))
    counts = _subject_counts(histograms.bins, scores, len(dice.thresholds), bootstrap)
    labels = []
    for number, (patch_map, mask) in enumerate(zip_longest(scores, masks)):
        if patch_map is None or mask is None:
            raise InputError(
                f"There are {len(scores)} patch maps, but {'more' if mask is not None else 'fewer'} masks."
            )
        anomalous = MASK_RULES[mask_rule](np.asarray(mask))
        pixels = anomaly_map(patch_map, (anomalous.shape[0], anomalous.shape[1]), smoothing_sigma)
        binned = histograms.update(pixels, anomalous)
        above = dice.update(pixels, anomalous)
        if bootstrap is not None and counts is not None:
            counts.update(int(bootstrap.subjects[number]), binned, anomalous)
            counts.update_thresholds(int(bootstrap.subjects[number]), *above)
        labels.append(bool(anomalous.any()))
    result.values["prevalence"] = histograms.prevalence
    if histograms.anomalous.any() and histograms.normal.any():
        result.values.update({name: metric(histograms) for name, metric in PIXEL_METRICS.items()})
        result.values.update(dice.values())
        result.curves = curves(histograms)
        if bootstrap is not None and counts is not None:
            result.replicates = pixel_replicates(counts, bootstrap.weights, list(dice.values()))
    return np.asarray(labels)


def _subject_counts(
    bins: ScoreBins, scores: Map, n_thresholds: int, bootstrap: Bootstrap | None
) -> SubjectCounts | None:
    if bootstrap is None:
        return None
    return SubjectCounts.empty(coarse_bins(bins, scores), bootstrap.weights.shape[1], n_thresholds)


def _evaluate_images(
    image_scores: Map, labels: npt.NDArray[np.bool_], result: Evaluation, bootstrap: Bootstrap | None
) -> None:
    if len(labels) != len(image_scores):
        raise InputError(f"There are {len(image_scores)} patch maps, but {len(labels)} image labels.")
    if labels.all() or not labels.any():
        return
    images, once = np.arange(len(labels)), np.ones((1, len(labels)))  # each image once: the AUROC itself
    result.values["image_auroc"] = float(image_auroc_replicates(image_scores, labels, images, once)[0])
    if bootstrap is not None:
        replicates = image_auroc_replicates(image_scores, labels, bootstrap.subjects, bootstrap.weights)
        result.replicates["image_auroc"] = replicates
