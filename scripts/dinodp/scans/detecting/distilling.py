"""A student from healthy scans."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dinodp.datasets.subjects import subjects_of
from dinodp.distillation.training import NormalImages, distil
from dinodp.jobs.logs import logger, progress
from dinodp.options.distillation import DistillationOptions
from dinodp.scans.detecting.canvas import Picture
from dinodp.scans.detecting.fitting import UnreadScan, measure, split_subjects
from dinodp.scans.detecting.machine import Machine
from dinodp.scans.detecting.preparation import Preparation
from dinodp.scans.detecting.settings import Settings


def distil_scans(
    scans: Sequence[UnreadScan], settings: Settings, options: DistillationOptions, folder: Path, device: str
) -> dict[str, float]:
    """Train a student on the scans that a fit with the same settings learns from; returns what `distil` does.

    So the scans on which that fit calibrates are new to the student as well. The chosen slices are held in memory.
    Raises InputError for scans that `fit_detector` refuses.
    """
    train, held_out = split_subjects(scans, settings)
    teacher = Machine(device).load(settings.backbone, settings.pinned_revision, settings)
    healthy, _ = measure(scans, settings)
    preparation = Preparation(settings, healthy)
    pictures: list[Picture] = []
    digests: list[str] = []
    for unread in progress(train, "read slices", unit="scan"):
        scan = unread.read(healthy.axes)
        pictures += map(_smallest, preparation.of(scan, settings.slice_step).pictures())
        digests += [scan.digest] * (len(pictures) - len(digests))
    subjects = len(set(subjects_of([scan.name for scan in train], settings.subject_pattern)))
    logger.info("The student learns from %d slices of %d subjects.", len(pictures), subjects)
    name = f"{len(train)} scans, {len(held_out)} held out"
    images = NormalImages(name, digests, lambda index: _coloured(pictures[index]), preparation.to_json())
    return distil(teacher, images, options, folder)


def _smallest(picture: Picture) -> Picture:
    """One channel of a grey picture [H, W, 3]."""
    grey = np.array_equal(picture[:, :, 0], picture[:, :, 1]) and np.array_equal(picture[:, :, 0], picture[:, :, 2])
    return picture[:, :, :1].copy() if grey else picture


def _coloured(picture: Picture) -> Picture:
    return np.broadcast_to(picture, (*picture.shape[:2], 3))
