"""Head-like slices drawn by the project: anatomy varies from subject to subject, lesions come with exact masks.

They need no download and show that the pipeline works; they say nothing about real images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from PIL import Image

from dinodp.datasets.manifest import SPLITS, image_row, make_manifest
from dinodp.datasets.sources.base import SeededOptions
from dinodp.jobs.files import replaced_folder
from dinodp.options.base import option

ANOMALOUS_SHARE = {"train": 0.0, "valid": 0.25, "test": 0.5}  # of the subjects


class PhantomOptions(SeededOptions):
    """Head-like slices with lesions, drawn by the project."""

    source: Literal["phantoms"] = "phantoms"
    size: int = option(192, "Side of an image.", unit="pixels", ge=64)
    n_train: int = option(160, "Training images.", ge=1)
    n_valid: int = option(48, "Validation images, a quarter of them anomalous.", ge=1)
    n_test: int = option(96, "Test images, half of them anomalous.", ge=1)
    slices_per_subject: int = option(4, "Images of one subject.", ge=1)

    def prepare(self, folder: Path) -> pd.DataFrame:
        """Draw all images and masks as 8-bit PNG below ``folder/images``; the same seed draws the same bytes.

        Every subject belongs to one split.
        """
        with replaced_folder(folder / "images") as images:
            drawn = [row for index, split in enumerate(SPLITS) for row in _draw_split(self, split, index, images)]
        return make_manifest(
            image_row(split, label, *_files(folder / "images", subject, number), subject, number)
            for split, label, subject, number in drawn
        )


def _files(images: Path, subject: str, slice_index: int) -> tuple[Path, Path]:
    return images / f"{subject}_{slice_index}.png", images / f"{subject}_{slice_index}_mask.png"


def _draw_split(options: PhantomOptions, split: str, index: int, images: Path) -> Iterator[tuple[str, str, str, int]]:
    """Write the images of a split; yields (split, label, subject, slice)."""
    from dinodp.datasets.sources.phantom_drawing import LESIONS, Anatomy, draw_lesion, draw_slice

    count, per_subject = getattr(options, f"n_{split}"), options.slices_per_subject
    n_subjects = -(-count // per_subject)
    n_normal = n_subjects - int(ANOMALOUS_SHARE[split] * n_subjects)
    for number in range(n_subjects):
        generator = np.random.default_rng([options.seed, index, number])
        anatomy = Anatomy.draw(generator)
        kind = None if number < n_normal else LESIONS[number % len(LESIONS)]
        for slice_index in range(min(per_subject, count - number * per_subject)):
            level = (slice_index + 0.5) / per_subject
            picture, tissue = draw_slice(anatomy, level, options.size, generator)
            mask = np.zeros(picture.shape, dtype=bool)
            if kind is not None:
                picture, mask = draw_lesion(picture, tissue, kind, generator)
            subject = f"{split}-{number:03d}"
            files = _files(images, subject, slice_index)
            Image.fromarray(np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)).save(files[0])
            Image.fromarray(mask.astype(np.uint8) * 255).save(files[1])
            yield split, "anomalous" if kind else "normal", subject, slice_index
