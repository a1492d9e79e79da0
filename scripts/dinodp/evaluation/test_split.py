"""Metrics of a scores file against a manifest."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from dinodp import store
from dinodp.datasets.manifest import select
from dinodp.evaluation.intervals import anomalous_subjects
from dinodp.images import read_mask_at
from dinodp.jobs.files import write_json
from dinodp.jobs.logs import logger
from dinodp.metrics import Bootstrap, evaluate_stream
from dinodp.options.protocol import Protocol


class MaskFiles:
    """The masks of manifest rows, read one at a time; a normal image without a file has an empty mask.

    With ``size`` (height, width) each is resized to it, nearest pixel.
    """

    def __init__(self, frame: pd.DataFrame, size: Sequence[int] | None = None) -> None:
        self.frame, self.size = frame, size

    def __len__(self) -> int:
        return len(self.frame)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        for mask, size in zip(self.frame["mask"], image_sizes(self.frame, self.size), strict=True):
            yield read_mask_at(mask, size)


def image_sizes(frame: pd.DataFrame, size: Sequence[int] | None = None) -> list[tuple[int, int]]:
    """Height and width at which each image of the frame is evaluated."""
    own = [(int(height), int(width)) for height, width in zip(frame["height"], frame["width"], strict=True)]
    return own if size is None else [(int(size[0]), int(size[1]))] * len(own)


def has_pixel_labels(frame: pd.DataFrame) -> bool:
    """Whether every anomalous image of the frame has a mask."""
    anomalous = frame[frame["label"] == "anomalous"]
    return len(anomalous) > 0 and bool((anomalous["mask"] != "").all())


def evaluate_scores(
    *,
    test_scores: Path,
    valid_scores: Path,
    manifest: pd.DataFrame,
    labels: Mapping[str, Any],
    protocol: Protocol,
    metrics_path: Path,
    curves_path: Path,
) -> None:
    """Evaluate every score of one model under every mask rule; write metrics (JSON) and curves (HDF5).

    Thresholds come from the normal validation images. Without masks only image metrics appear. The curves file also
    holds every metric of the resamples of the test subjects, from the same draws for all models, and how many subjects
    have an anomaly.
    """
    test, valid = select(manifest, "test"), select(manifest, "valid")
    normal = valid[valid["label"] == "normal"]
    anomalous, subjects = (test["label"] == "anomalous").to_numpy(), subjects_of(test)
    bootstrap = Bootstrap.of(subjects, anomalous, protocol.resamples) if protocol.resamples else None
    origin = {**labels, "anomalous_subjects": anomalous_subjects(subjects, anomalous)}
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    with store.writing(curves_path, "curves", origin) as file:
        for rule in protocol.mask_rules:
            valid_maps = store.read_maps(valid_scores, rule)
            for score, maps in store.read_maps(test_scores, rule).items():
                logger.info("Evaluate %s, mask rule %s.", score, rule)
                result = evaluate_stream(
                    maps,
                    MaskFiles(test, protocol.mask_size) if has_pixel_labels(test) else None,
                    valid_maps[score][normal.index],
                    protocol.under(rule),
                    image_labels=anomalous,
                    bootstrap=bootstrap,
                    validation_sizes=image_sizes(normal, protocol.mask_size),
                )
                metrics.setdefault(score, {})[rule] = result.values
                _write_arrays(file, f"{score}/{rule}", result.curves)
                _write_arrays(file, f"replicates/{score}/{rule}", result.replicates)
    write_json(metrics_path, {**labels, "metrics": metrics})


def _write_arrays(file: h5py.File, group: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    for name, values in arrays.items():
        file.create_dataset(f"{group}/{name}", data=values, track_times=False)


def subjects_of(frame: pd.DataFrame) -> list[str]:
    """The subject of each image; an image without one is its own."""
    return [str(subject) or str(image) for subject, image in zip(frame["subject"], frame["image"], strict=True)]
