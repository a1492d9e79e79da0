"""Evaluate anomaly maps of own scans against lesion masks, and compare two models on the same scans.

Counted are the voxels that were scored, and lesion voxels that were not: those are missed at every threshold.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dinodp.datasets.geometry import Affine, VolumeGeometry
from dinodp.datasets.subjects import subjects_of
from dinodp.datasets.volumes import AXES
from dinodp.errors import InputError, one_line
from dinodp.evaluation.intervals import anomalous_subjects, interval
from dinodp.jobs.files import RECORD
from dinodp.jobs.logs import progress
from dinodp.jobs.strangers import parsed_json
from dinodp.metrics.bootstrap import Bootstrap
from dinodp.metrics.pixels import PixelCounter
from dinodp.metrics.streaming import Evaluation, image_metrics
from dinodp.scans.detecting.calibration import evenly
from dinodp.scans.reading.masks import Mask, MaskNaming, find_masks, read_image_mask, read_volume_mask
from dinodp.scans.writing.maps import read_map
from dinodp.scans.writing.unfinished import require_finished

LARGEST_PREVALENCE = 0.99  # masks that cover more are no lesion masks
VALUES_PER_SCAN = 100_000  # sampled to place the bins of the histograms
Map = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PredictedScan:
    """What the record says of one scan: its map, what that holds where nothing was scored, its score, those of its
    slices (index on disk, score), and its map of tail probabilities, if there is one."""

    map: Path
    outside: float
    score: float
    slices: Sequence[tuple[int, float]]
    tail: Path | None = None

    @classmethod
    def of(cls, folder: Path, row: Mapping[str, Any]) -> "PredictedScan":
        """From the record in ``folder``. Raises KeyError, TypeError or ValueError for another."""
        slices = [(int(item["slice"]), float(item["score"])) for item in row["slices"]]
        tail = folder / row["tail"] if "tail" in row else None
        return cls(folder / row["map"], float(row["outside"]), float(row["score"]), slices, tail)


@dataclass(frozen=True)
class Predictions:
    """What `dinodp predict` wrote into a folder; ``thresholds`` by the name that metrics use."""

    folder: Path
    model: str
    axis: int
    frame: Affine | None
    map_range: tuple[float, float]
    thresholds: dict[str, float]
    failed: tuple[str, ...]
    scans: dict[str, PredictedScan]

    @classmethod
    def read(cls, folder: Path) -> "Predictions":
        """Raises InputError when the folder holds no predictions, or not all of them."""
        require_finished(folder)
        try:
            content = parsed_json((folder / RECORD).read_bytes(), folder / RECORD)
            low, high = content["map_range"]
            return cls(
                folder,
                f"{content['model']} ({content['backbone']['backbone']})",
                AXES[content["axis"]],
                None if content["frame"] is None else np.array(content["frame"], dtype=np.float64).reshape(3, 3),
                (float(low), float(high)),
                {f"threshold_{name}": float(value) for name, value in content["thresholds"].items()},
                tuple(sorted(content["failed"])),
                {item["name"]: PredictedScan.of(folder, item) for item in content["scans"]},
            )
        except OSError as error:
            raise InputError(f"{folder} holds no predictions of `dinodp predict` (no readable {RECORD}).") from error
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{folder / RECORD} is not what this version of `dinodp predict` writes ({type(error).__name__}: "
                f"{one_line(error)}): predict again."
            ) from error

    @property
    def names(self) -> list[str]:
        """The scans that were scored, by name."""
        return sorted(self.scans)

    def against(self, name: str, mask: Path | None) -> "MaskedScan":
        """Map and mask of one scan. Raises InputError when one cannot be read or they do not fit."""
        scores, scored, geometry = self.map(name)
        if mask is None:
            anomalous = np.zeros(scores.shape, bool)
        elif geometry is None:
            anomalous = read_image_mask(mask, scores.shape[1:])[None]
        else:
            anomalous = read_volume_mask(mask, geometry)
        scan = self.scans[name]
        slices = {} if geometry is None else {geometry.slice_on_disk(index): score for index, score in scan.slices}
        return MaskedScan(scores, anomalous, scored, scan.score, slices)

    def map(self, name: str) -> tuple[Map, Mask, VolumeGeometry | None]:
        """Scores of one scan and what was scored [slice, H, W], and where it lies; no geometry of an image."""
        scan = self.scans[name]
        scores, scored, affine = read_map(scan.map, self.map_range, scan.outside)
        if affine is None:
            return scores[None], scored[None], None
        geometry = VolumeGeometry(scores.shape, affine, self.axis, frame=self.frame)
        return geometry.to_stack(scores), geometry.to_stack(scored), geometry


@dataclass(frozen=True)
class MaskedScan:
    """``scores``, ``anomalous`` and ``scored`` [slice, H, W] of one scan, its own score, and those of the slices of a
    volume that were scored themselves."""

    scores: Map
    anomalous: Mask
    scored: Mask
    score: float
    slice_scores: dict[int, float]


@dataclass(frozen=True)
class LabelledScans:
    """The scans that are evaluated: names, masks, subjects."""

    masks: dict[str, Path | None]
    subjects: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, names: Sequence[str], masks: Path, naming: MaskNaming, subject_pattern: str | None) -> "LabelledScans":
        """Raises InputError as `find_masks` does and for a pattern that is none."""
        found = find_masks(masks, list(names), naming)
        return cls(found, subjects_of(list(found), subject_pattern))


def evaluate_predictions(predictions: Predictions, test: LabelledScans, n_resamples: int) -> Evaluation:
    """Metrics by name, with their values in each resample of the subjects.

    ``pixel_*``, ``aupro_30`` (regions within slices), ``max_dice``, ``dice_fpr*`` at the model's thresholds;
    ``scan_auroc`` where there are scans with and without lesions, ``slice_auroc`` likewise for the slices of volumes
    that were scored themselves. Raises InputError when no mask has a lesion, or nothing is outside of them.
    """
    subjects = sorted(set(test.subjects))
    counter = PixelCounter(_sample(predictions, test), predictions.thresholds, len(subjects))
    labels = ImageLabels()
    for (name, mask), subject in zip(progress(test.masks.items(), "evaluate", len(test.masks), "scan"), test.subjects,
                                     strict=True):  # fmt: skip
        scan = predictions.against(name, mask)
        labels.add(scan, subject)
        for scores, anomalous, counted in _slices(scan):
            counter.add(scores, anomalous, subjects.index(subject), counted)
    histograms = counter.histograms
    if not histograms.anomalous.any():
        raise InputError(f"None of the {len(test.masks)} masks holds a lesion: there is nothing to evaluate against.")
    if histograms.prevalence > LARGEST_PREVALENCE:
        raise InputError(
            f"The masks cover {histograms.prevalence:.1%} of what was scored: are they the scans themselves "
            "(--scan-suffix and --mask-suffix)?"
        )
    bootstrap = Bootstrap.of(labels.subjects, np.asarray(labels.anomalous), n_resamples)
    result = Evaluation(counter.values() | {"prevalence": histograms.prevalence})
    result.n_subjects = anomalous_subjects(labels.subjects, labels.anomalous)
    result.replicates = counter.replicates(bootstrap.weights)
    labels.evaluate(result, bootstrap)
    return result


def _sample(predictions: Predictions, test: LabelledScans) -> Map:
    """A sample of the scores of all scored voxels that keeps the extremes."""
    parts = []
    for name in test.masks:
        scores, scored, _ = predictions.map(name)
        values = scores[scored]
        sampled = evenly(values, min(len(values), VALUES_PER_SCAN))
        parts.extend([sampled, np.array([values.min(), values.max()])])
    return np.concatenate(parts)


def _slices(scan: MaskedScan) -> Iterator[tuple[Map, Mask, Mask]]:
    """Scores, lesion, and what counts, of every slice that holds anything; unscored voxels are lowest."""
    scores = np.where(scan.scored, scan.scores, -np.inf).astype(np.float32)
    counted = scan.scored | scan.anomalous
    for index in np.flatnonzero(counted.any(axis=(1, 2))):
        yield scores[index], scan.anomalous[index], counted[index]


@dataclass
class ImageLabels:
    """Scores and labels of whole scans and of the slices of volumes."""

    subjects: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    anomalous: list[bool] = field(default_factory=list)
    slice_subjects: list[str] = field(default_factory=list)
    slice_scores: list[float] = field(default_factory=list)
    slice_anomalous: list[bool] = field(default_factory=list)

    def add(self, scan: MaskedScan, subject: str) -> None:
        """Take one scan, and its slices with their scores as in slices.csv."""
        self.subjects.append(subject)
        self.scores.append(scan.score)
        self.anomalous.append(bool(scan.anomalous.any()))
        for index, score in scan.slice_scores.items():
            self.slice_subjects.append(subject)
            self.slice_scores.append(score)
            self.slice_anomalous.append(bool(scan.anomalous[index].any()))

    def evaluate(self, result: Evaluation, bootstrap: Bootstrap) -> None:
        """Add the AUROC of scans and of slices where both classes occur."""
        names = sorted(set(self.subjects))
        for what, subjects, scores, labels in (
            ("scan", self.subjects, self.scores, self.anomalous),
            ("slice", self.slice_subjects, self.slice_scores, self.slice_anomalous),
        ):
            index = np.array([names.index(subject) for subject in subjects], dtype=np.int64)
            truth, resampled = np.asarray(labels, dtype=bool), Bootstrap(index, bootstrap.weights)
            values, replicates = image_metrics(np.asarray(scores, dtype=np.float32), truth, resampled)
            result.values |= {name.replace("image", what, 1): value for name, value in values.items()}
            result.replicates |= {name.replace("image", what, 1): value for name, value in replicates.items()}


def metric_rows(result: Evaluation) -> list[dict[str, Any]]:
    """One row per metric: value, and interval where there is one."""
    rows = []
    for name, value in result.values.items():
        known = name in result.replicates
        low, high = interval(value, result.replicates[name], result.n_subjects) if known else (None, None)
        rows.append({"metric": name, "value": value, "low": low, "high": high})
    return rows


def difference_rows(first: Evaluation, second: Evaluation) -> list[dict[str, Any]]:
    """One row per metric of both: values, first minus second, interval of the difference over the same resamples."""
    rows = []
    for name, value in first.values.items():
        if name in first.replicates and name in second.replicates:
            other, replicates = second.values[name], first.replicates[name] - second.replicates[name]
            low, high = interval(value - other, replicates, first.n_subjects, difference=True)
            rows.append(
                {"metric": name, "first": value, "second": other, "difference": value - other, "low": low, "high": high}
            )
    return rows
