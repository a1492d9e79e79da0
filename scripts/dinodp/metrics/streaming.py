"""All metrics of a test split in one pass over its masks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from dinodp.errors import InputError, require_known
from dinodp.images import MASK_RULES, anomalous_in, image_score
from dinodp.metrics.anomaly_maps import anomaly_map
from dinodp.metrics.bootstrap import Bootstrap
from dinodp.metrics.curves import curves
from dinodp.metrics.definitions import metrics_of
from dinodp.metrics.histograms import Map
from dinodp.metrics.lesions import LesionCounter, region_thresholds
from dinodp.metrics.pixels import PixelCounter
from dinodp.metrics.thresholds import calibrated_thresholds, full_resolution_thresholds
from dinodp.options.protocol import PAPER, Protocol

Mask = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Boxed = tuple[Flags, Sequence[tuple[slice, ...]]]  # which pixels [H, W] are in a box, and each box's


@dataclass
class Evaluation:
    """Metrics by name (fractions), curves for drawing, metrics of every resample of subjects (may be empty).

    ``n_subjects``: how many subjects have an anomaly, where that was counted.
    """

    values: dict[str, float]
    curves: dict[str, npt.NDArray[np.floating]] = field(default_factory=dict)
    replicates: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    n_subjects: int = 0


def evaluate(
    patch_maps: Map,
    masks: Iterable[Mask] | None,
    validation_normal_patch_maps: Map,
    mask_rule: str = "gt0",
    *,
    image_labels: Sequence[bool] | Flags | None = None,
    smoothing_sigma: float = 0.0,
) -> dict[str, float]:
    """Metrics by name of patch scores [n, row, col]; see ``evaluate_stream``."""
    protocol = Protocol(mask_rules=(mask_rule,), smoothing_sigma=smoothing_sigma)
    return evaluate_stream(patch_maps, masks, validation_normal_patch_maps, protocol, image_labels=image_labels).values


def evaluate_stream(
    patch_maps: Map,
    masks: Iterable[Mask] | None,
    validation_normal_patch_maps: Map,
    protocol: Protocol = PAPER,
    *,
    image_labels: Sequence[bool] | Flags | None = None,
    bootstrap: Bootstrap | None = None,
    validation_sizes: Sequence[tuple[int, int]] | None = None,
    boxes: Iterable[Boxed] | None = None,
) -> Evaluation:
    """Evaluate patch scores float32 [n, row, col] against ``masks``, uint8 [H, W], read one at a time.

    What is anomalous says the first mask rule of the ``protocol``. With ``validation_sizes`` (height, width of each
    validation image) there are also thresholds calibrated at full resolution, and metrics at them. Without masks only
    image metrics are given, and those of lesions where these are ``boxes``, one item per image. Image metrics need
    ``image_labels`` [n] (default: has an anomalous pixel). What is not defined (no anomalous pixel, one class of
    images) is absent: never zero, never NaN.
    Raises InputError for scores that are not finite, other shapes, or masks that are fewer or more than the maps.
    """
    require_known("mask rule", protocol.mask_rule, MASK_RULES)
    scores = np.asarray(patch_maps, dtype=np.float32)
    if scores.ndim != 3:
        raise InputError(f"Patch maps have shape {scores.shape}; [image, row, col] is needed.")
    if not np.isfinite(scores).all():
        raise InputError("Patch scores must be finite; some of the test images' are not.")
    result = Evaluation(calibrated_thresholds(validation_normal_patch_maps))
    if validation_sizes is not None:
        maps = validation_normal_patch_maps
        result.values.update(full_resolution_thresholds(maps, validation_sizes, protocol.smoothing_sigma))
    if masks is not None:
        labels = _evaluate_pixels(scores, masks, protocol, result, bootstrap)
        image_labels = labels if image_labels is None else image_labels
    if boxes is not None:
        _evaluate_boxes(scores, boxes, protocol, result, bootstrap)
    if image_labels is not None:
        labels = np.asarray(image_labels, dtype=bool)
        image_scores = image_score(scores, protocol.image_score_fraction, protocol.image_score_sigma)
        _evaluate_images(image_scores, labels, result, bootstrap)
    return result


def _evaluate_pixels(
    scores: Map, masks: Iterable[Mask], protocol: Protocol, result: Evaluation, bootstrap: Bootstrap | None
) -> Flags:
    """Add pixel metrics, curves and replicates to ``result``; return which images have an anomalous pixel."""
    counter = PixelCounter(scores, result.values, 0 if bootstrap is None else bootstrap.weights.shape[1])
    lesions = _lesion_counter(scores, bootstrap) if protocol.lesions else None
    labels = []
    for number, (patch_map, mask) in enumerate(zip_longest(scores, masks)):
        if patch_map is None or mask is None:
            raise InputError(
                f"There are {len(scores)} patch maps, but {'more' if mask is not None else 'fewer'} masks."
            )
        anomalous = anomalous_in(np.asarray(mask), protocol.mask_rule)
        pixels = anomaly_map(patch_map, (anomalous.shape[0], anomalous.shape[1]), protocol.smoothing_sigma)
        subject = 0 if bootstrap is None else int(bootstrap.subjects[number])
        counter.add(pixels, anomalous, subject)
        if lesions is not None:
            lesions.add(pixels, anomalous, subject)
        labels.append(bool(anomalous.any()))
    result.values["prevalence"] = counter.histograms.prevalence
    if values := counter.values():
        result.values |= values
        result.curves = curves(counter.histograms)
        result.replicates = {} if bootstrap is None else counter.replicates(bootstrap.weights)
    if lesions is not None:
        _add_lesions(lesions, result, bootstrap)
    return np.asarray(labels)


def _evaluate_boxes(
    scores: Map, boxes: Iterable[Boxed], protocol: Protocol, result: Evaluation, bootstrap: Bootstrap | None
) -> None:
    """Add the metrics of lesions that are boxes to ``result``."""
    lesions = _lesion_counter(scores, bootstrap)
    for number, (patch_map, (inside, parts)) in enumerate(zip(scores, boxes, strict=True)):
        pixels = anomaly_map(patch_map, (inside.shape[0], inside.shape[1]), protocol.smoothing_sigma)
        lesions.add(pixels, inside, 0 if bootstrap is None else int(bootstrap.subjects[number]), parts=parts)
    _add_lesions(lesions, result, bootstrap)


def _lesion_counter(scores: Map, bootstrap: Bootstrap | None) -> LesionCounter:
    return LesionCounter(region_thresholds(scores), 1 if bootstrap is None else bootstrap.weights.shape[1])


def _add_lesions(lesions: LesionCounter, result: Evaluation, bootstrap: Bootstrap | None) -> None:
    result.values |= lesions.values()
    if bootstrap is not None:
        result.replicates |= lesions.replicates(bootstrap.weights)


def _evaluate_images(image_scores: Map, labels: Flags, result: Evaluation, bootstrap: Bootstrap | None) -> None:
    if len(labels) != len(image_scores):
        raise InputError(f"There are {len(image_scores)} patch maps, but {len(labels)} image labels.")
    values, replicates = image_metrics(image_scores, labels, bootstrap)
    result.values |= values
    result.replicates |= replicates


def image_metrics(
    scores: Map, labels: Flags, bootstrap: Bootstrap | None
) -> tuple[dict[str, float], dict[str, npt.NDArray[np.float64]]]:
    """Image metrics by name and, with ``bootstrap``, their replicates; none where all images [n] are of one class."""
    if labels.all() or not labels.any():
        return {}, {}
    metrics, once = metrics_of("images"), np.ones(len(labels))
    values = {name: float(metric.compute(scores, labels, once)) for name, metric in metrics.items()}
    if bootstrap is None or not len(bootstrap.weights):
        return values, {}
    weights = bootstrap.weights[:, bootstrap.subjects]
    return values, {name: metric.compute(scores, labels, weights) for name, metric in metrics.items()}
