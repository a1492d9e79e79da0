"""Metrics of a scores file against a manifest."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from dinodp import store
from dinodp.datasets.boxes import boxes_of, pixels_in
from dinodp.datasets.manifest import BOXES, manifest_digest, select
from dinodp.errors import InputError
from dinodp.evaluation.intervals import anomalous_subjects
from dinodp.images import read_mask_at
from dinodp.jobs.logs import logger
from dinodp.jobs.origin import AGAIN, origin_of, read_result, require_made_from, require_unchanged, write_result
from dinodp.metrics import Bootstrap, evaluate_stream
from dinodp.options.protocol import Protocol


class MaskFiles:
    """The masks of manifest rows, read one at a time; a normal image without a file has an empty mask.

    With ``size`` (height, width) each is resized to it, nearest pixel. Reading raises InputError for a mask that is not
    the one whose digest the manifest holds.
    """

    def __init__(self, frame: pd.DataFrame, size: Sequence[int] | None = None) -> None:
        self.frame, self.size = frame, size

    def __len__(self) -> int:
        return len(self.frame)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        masks, digests = self.frame["mask"], self.frame["mask_sha256"]
        for mask, digest, size in zip(masks, digests, image_sizes(self.frame, self.size), strict=True):
            if mask:
                require_unchanged(mask, digest)
            yield read_mask_at(mask, size)


class BoxedImages:
    """The boxes of manifest rows, one image at a time: which pixels [H, W] are in one, and those of each."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def __len__(self) -> int:
        return len(self.frame)

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.bool_], list[tuple[slice, ...]]]]:
        for text, image, size in zip(self.frame[BOXES], self.frame["image"], image_sizes(self.frame), strict=True):
            boxes = boxes_of(text)
            yield pixels_in(boxes, size, image), [box.pixels() for box in boxes]


def image_sizes(frame: pd.DataFrame, size: Sequence[int] | None = None) -> list[tuple[int, int]]:
    """Height and width at which each image of the frame is evaluated."""
    own = [(int(height), int(width)) for height, width in zip(frame["height"], frame["width"], strict=True)]
    return own if size is None else [(int(size[0]), int(size[1]))] * len(own)


def has_pixel_labels(frame: pd.DataFrame) -> bool:
    """Whether every anomalous image of the frame has a mask."""
    anomalous = frame[frame["label"] == "anomalous"]
    return len(anomalous) > 0 and bool((anomalous["mask"] != "").all())


def has_boxes(frame: pd.DataFrame) -> bool:
    """Whether every anomalous image of the frame has a box."""
    anomalous = frame[frame["label"] == "anomalous"]
    return len(anomalous) > 0 and BOXES in frame and bool((anomalous[BOXES] != "").all())


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

    Thresholds come from the normal validation images. Without masks only image metrics appear, and with boxes those of
    lesions, at the images' own size. The curves file also holds every metric of the resamples of the test subjects,
    from the same draws for all models, and how many subjects have an anomaly. Raises InputError for scores that are not
    of this manifest.
    """
    made_from = scores_made_from(manifest, test_scores, valid_scores)
    test, valid = select(manifest, "test"), select(manifest, "valid")
    normal = valid[valid["label"] == "normal"]
    anomalous, subjects = (test["label"] == "anomalous").to_numpy(), subjects_of(test)
    bootstrap = Bootstrap.of(subjects, anomalous, protocol.resamples) if protocol.resamples else None
    origin = {**labels, "anomalous_subjects": anomalous_subjects(subjects, anomalous)}
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    with store.writing(curves_path, "curves", origin, made_from) as file:
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
                    boxes=BoxedImages(test) if has_boxes(test) else None,
                )
                metrics.setdefault(score, {})[rule] = result.values
                _write_arrays(file, f"{score}/{rule}", result.curves)
                _write_arrays(file, f"replicates/{score}/{rule}", result.replicates)
    write_result(metrics_path, {**labels, "metrics": metrics}, __name__, made_from)


def scores_made_from(manifest: pd.DataFrame, test_scores: Path, valid_scores: Path) -> dict[str, str]:
    """Digests of a manifest and of the scores of one model on its test and validation images.

    Raises InputError unless both are of this manifest, of one model, and as many as its images.
    """
    found = {"manifest": manifest_digest(manifest)}
    models = {}
    for split, path in (("test", test_scores), ("valid", valid_scores)):
        inputs = store.read_inputs(path, "scores")
        require_made_from(path, inputs, "manifest", found["manifest"], "this manifest")
        n_images, n_scores = len(select(manifest, split)), store.n_scored(path)
        if n_scores != n_images:
            raise InputError(f"{path} scores {n_scores} images, the {split} split has {n_images}: {AGAIN}.")
        found[split] = store.digest_of(path)
        models[inputs.get("model")] = path
    if len(models) > 1:
        raise InputError(f"{test_scores} and {valid_scores} are of different models: {AGAIN}.")
    return found


def require_scores_of(model: Path, *scores: Path) -> None:
    """Raise InputError unless all ``scores`` were made by this model file."""
    for path in scores:
        require_made_from(
            path, store.read_inputs(path, "scores"), "model", store.digest_of(model), f"{model} as it is now"
        )


def require_one_job(manifest: pd.DataFrame, test: Path, valid: Path, metrics: Path, curves: Path) -> None:
    """Raise InputError unless metrics and curves were made from these scores and this manifest."""
    made_from = scores_made_from(manifest, test, valid)
    said = {metrics: origin_of(read_result(metrics)).made_from, curves: store.read_inputs(curves, "curves")}
    for path, inputs in said.items():
        for role, digest in made_from.items():
            require_made_from(path, inputs, role, digest, f"the {role} as it is now")


def _write_arrays(file: h5py.File, group: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    for name, values in arrays.items():
        file.create_dataset(f"{group}/{name}", data=values, track_times=False)


def subjects_of(frame: pd.DataFrame) -> list[str]:
    """The subject of each image; an image without one is its own."""
    return [str(subject) or str(image) for subject, image in zip(frame["subject"], frame["image"], strict=True)]
