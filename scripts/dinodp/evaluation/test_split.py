"""Metrics of a scores file against a manifest."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dinodp import store
from dinodp.datasets.manifest import select
from dinodp.evaluation.intervals import anomalous_subjects
from dinodp.images import read_mask, resize_mask
from dinodp.jobs.files import write_json
from dinodp.jobs.logs import logger
from dinodp.metrics import Bootstrap, evaluate_stream


class MaskFiles:
    """The masks of manifest rows, read one at a time; a normal image without a file has an empty mask.

    With ``size`` (height, width) each is resized to it, nearest pixel.
    """

    def __init__(self, frame: pd.DataFrame, size: Sequence[int] | None = None) -> None:
        self.frame, self.size = frame, size

    def __len__(self) -> int:
        return len(self.frame)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        for mask, height, width in zip(self.frame["mask"], self.frame["height"], self.frame["width"], strict=True):
            shape = (int(height), int(width)) if self.size is None else (int(self.size[0]), int(self.size[1]))
            values = read_mask(str(mask)) if mask else np.zeros(shape, dtype=np.uint8)
            yield values if values.shape == shape else resize_mask(values, shape)


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
    mask_rules: Sequence[str],
    smoothing_sigma: float,
    n_resamples: int,
    metrics_path: Path,
    curves_path: Path,
    mask_size: Sequence[int] | None = None,
    image_score_fraction: float = 0.01,
) -> None:
    """Evaluate every score of one model under every mask rule; write metrics (JSON) and curves (HDF5).

    Thresholds come from the normal validation images. ``mask_size`` (height, width) has masks resized and maps made at
    that size; ``image_score_fraction``: share of the patches whose mean is the image score. Without masks only image
    metrics appear. The curves file also holds every metric of ``n_resamples`` resamples of the test subjects (0: none),
    from the same draws for all models, and how many subjects have an anomaly.
    """
    test, valid = select(manifest, "test"), select(manifest, "valid")
    normal = (valid["label"] == "normal").to_numpy()
    test_maps, valid_maps = store.read_maps(test_scores), store.read_maps(valid_scores)
    labels_of_images, subjects = (test["label"] == "anomalous").to_numpy(), subjects_of(test)
    bootstrap = Bootstrap.of(subjects, labels_of_images, n_resamples) if n_resamples else None
    origin = {**labels, "anomalous_subjects": anomalous_subjects(subjects, labels_of_images)}
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    with store.writing(curves_path, "curves", origin) as file:
        for score, maps in test_maps.items():
            for rule in mask_rules:
                logger.info("Evaluate %s, mask rule %s.", score, rule)
                result = evaluate_stream(
                    maps,
                    MaskFiles(test, mask_size) if has_pixel_labels(test) else None,
                    valid_maps[score][normal],
                    rule,
                    image_labels=labels_of_images,
                    smoothing_sigma=smoothing_sigma,
                    bootstrap=bootstrap,
                    validation_sizes=image_sizes(valid[normal], mask_size),
                    image_score_fraction=image_score_fraction,
                )
                metrics.setdefault(score, {})[rule] = result.values
                for name, values in result.curves.items():
                    file.create_dataset(f"{score}/{rule}/{name}", data=values, track_times=False)
                for name, replicates in result.replicates.items():
                    file.create_dataset(f"replicates/{score}/{rule}/{name}", data=replicates, track_times=False)
    write_json(metrics_path, {**labels, "metrics": metrics})


def subjects_of(frame: pd.DataFrame) -> list[str]:
    """The subject of each image; an image without one is its own."""
    return [str(subject) or str(image) for subject, image in zip(frame["subject"], frame["image"], strict=True)]
