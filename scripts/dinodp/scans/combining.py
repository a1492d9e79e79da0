"""Several models of one subject, such as one of FLAIR and one of T1: their tail probabilities in one map.

Fisher's rule: minus twice the sum of the logarithms of k probabilities is compared with chi-squared of 2 k degrees of
freedom. Modalities of one body depend on each other, so what comes out is a score from 0 to 1, and no p-value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import chi2

from dinodp import __version__
from dinodp.datasets.geometry import VolumeGeometry, same_grid
from dinodp.errors import InputError
from dinodp.images import image_score
from dinodp.jobs.files import RECORD, write_json, write_text
from dinodp.jobs.logs import logger, progress
from dinodp.options.protocol import FALSE_POSITIVE_RATES
from dinodp.scans.measuring.predictions import Predictions
from dinodp.scans.reading.masks import Mask
from dinodp.scans.writing.gallery import NOTE
from dinodp.scans.writing.maps import Map, read_map, write_image, write_volume
from dinodp.scans.writing.prediction import TAILS
from dinodp.scans.writing.summary import cell

OUTSIDE = -1.0  # in the map, where one of the models scored nothing; minus the logarithm of a probability is at least 0
AXES_BY_NUMBER = ("sagittal", "coronal", "axial")


def fisher(probabilities: Sequence[Map]) -> npt.NDArray[np.float64]:
    """Minus the decimal logarithm of the combined tail probability, of probabilities in (0, 1] of one shape."""
    statistic = -2 * np.sum([np.log(np.asarray(values, dtype=np.float64)) for values in probabilities], axis=0)
    found: npt.NDArray[np.float64] = -chi2.logsf(statistic, 2 * len(probabilities)) / np.log(10)
    return np.abs(found)  # not -0


@dataclass(frozen=True)
class Combined:
    """``scores`` and what was ``scored`` [slice, H, W]; ``geometry`` is None of an image."""

    scores: Map
    scored: Mask
    geometry: VolumeGeometry | None

    def on_disk(self, stack: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """In the shape and order of the first model's map."""
        return stack[0] if self.geometry is None else self.geometry.from_stack(stack)

    @property
    def tail(self) -> Map:
        """The combined tail probability; 1 where nothing was scored."""
        return np.where(self.scored, 10.0 ** -np.maximum(self.scores, 0), 1).astype(np.float32)

    def slices(self) -> list[dict[str, Any]]:
        """The score of each slice that was scored, numbered as on disk."""
        if self.geometry is None:
            return []
        inside = [index for index in range(len(self.scores)) if self.scored[index].any()]
        return [
            {"slice": self.geometry.slice_on_disk(index), "score": _highest(self.scores[index], self.scored[index])}
            for index in inside
        ]


def shared_names(models: Sequence[Predictions], suffixes: Sequence[str]) -> dict[str, list[str]]:
    """The scans of each subject, one of each model: their names without the suffix of the model are the same.

    Raises InputError for none; subjects that a model lacks are named in the log.
    """
    subjects = [
        {name.removesuffix(suffix): name for name in model.names if name.endswith(suffix)}
        for model, suffix in zip(models, suffixes, strict=True)
    ]
    common = set.intersection(*(set(names) for names in subjects))
    if not common:
        examples = " and ".join(model.names[0] if model.names else "none" for model in models)
        raise InputError(f"No subject has a scan of each model: {examples} have no name in common (--suffixes).")
    if alone := sorted(set.union(*(set(names) for names in subjects)) - common):
        logger.warning("%d subjects lack a scan of one of the models, such as %s.", len(alone), alone[0])
    return {subject: [names[subject] for names in subjects] for subject in sorted(common)}


def combine(models: Sequence[Predictions], names: Sequence[str]) -> Combined:
    """The scans ``names``, one of each model. Raises InputError where they do not lie on one grid."""
    parts = [_read(model, name, models[0]) for model, name in zip(models, names, strict=True)]
    geometry = parts[0][2]
    for model, name, (tail, _, other) in zip(models, names, parts, strict=True):
        same = geometry is not None and other is not None and same_grid(geometry, other)
        if (geometry is None) != (other is None) or tail.shape != parts[0][0].shape or not (same or geometry is None):
            raise InputError(
                f"{names[0]} of {models[0].folder} and {name} of {model.folder} do not lie on one grid: register one "
                "scan to the other, and predict again."
            )
    scored = np.logical_and.reduce([item for _, item, _ in parts])
    scores = np.where(scored, fisher([tail for tail, _, _ in parts]), OUTSIDE).astype(np.float32)
    return Combined(scores, scored, geometry)


def _read(model: Predictions, name: str, first: Predictions) -> tuple[Map, Mask, VolumeGeometry | None]:
    """Tail probabilities and what was scored of one scan [slice, H, W], sliced as those of the ``first`` model."""
    scan = model.scans[name]
    if scan.tail is None:
        raise InputError(f"{model.folder} holds no tail probabilities of {name}: predict with --calibrated.")
    _, scored, affine = read_map(scan.map, model.map_range, scan.outside)
    tail, _, _ = read_map(scan.tail, (0.0, 1.0), 0.0)
    if tail.shape != scored.shape or not ((tail > 0) & (tail <= 1)).all():
        raise InputError(f"{scan.tail} does not hold a probability for each voxel of {scan.map}: predict again.")
    if affine is None:
        return tail[None], scored[None], None
    geometry = VolumeGeometry(tail.shape, affine, first.axis, frame=first.frame)
    return geometry.to_stack(tail), geometry.to_stack(scored), geometry


def _highest(scores: Map, scored: Mask) -> float:
    return float(image_score(scores[scored].reshape(1, 1, -1))[0]) if scored.any() else 0.0


def write_combined(folder: Path, models: Sequence[Predictions], suffixes: Sequence[str]) -> int:
    """Write maps, tail probabilities, a table and the record that `dinodp evaluate` needs; returns how many scans."""
    rows, scans = [], []
    for subject, names in progress(shared_names(models, suffixes).items(), "combine", unit="scan"):
        found = combine(models, names)
        scan = _write_scan(folder, subject, found)
        above = found.scored & (found.scores > _thresholds()["fpr01"])
        ml = "" if found.geometry is None else round(float(above.sum() * found.geometry.voxel_ml), 6)
        share = float(above.sum() / max(1, found.scored.sum()))
        rows.append({"scan": cell(subject), "score": scan["score"], "share_above": share, "ml_above": ml})
        scans.append(scan)
    write_text(folder / "scans.csv", pd.DataFrame(rows).to_csv(index=False))
    write_json(folder / RECORD, _record(models, scans))
    return len(scans)


def _write_scan(folder: Path, name: str, found: Combined) -> dict[str, Any]:
    kind = ".tiff" if found.geometry is None else ".nii.gz"
    files = [f"maps/{name}{kind}", f"{TAILS}/{name}{kind}"]
    for file, stack in zip(files, (found.scores, found.tail), strict=True):
        values = found.on_disk(stack)
        if found.geometry is None:
            write_image(folder / file, values, found.on_disk(found.scored), (0.0, 1.0))
        else:
            write_volume(folder / file, values, found.geometry, "combined tail probability, not a diagnosis")
    score = _highest(found.scores, found.scored)
    slices = found.slices()
    return {
        "name": name, "map": files[0], "tail": files[1], "files": files, "outside": OUTSIDE, "score": score,
        "slices": slices,
    }  # fmt: skip


def _thresholds() -> dict[str, float]:
    """What 10, 5 and 1 % would exceed if the models were independent."""
    return {name: float(-np.log10(rate)) for name, rate in FALSE_POSITIVE_RATES.items()}


def _record(models: Sequence[Predictions], scans: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first = models[0]
    return {
        "note": NOTE,
        "dinodp": __version__,
        "model": " + ".join(model.model for model in models),
        "backbone": {"backbone": "Fisher's rule"},
        "score": "minus log10 of the combined tail probability",
        "axis": AXES_BY_NUMBER[first.axis],
        "frame": None if first.frame is None else first.frame.tolist(),
        "thresholds": _thresholds(),
        "threshold": "fpr01",
        "map_range": [0.0, 20.0],
        "scans": list(scans),
        "failed": {},
    }
