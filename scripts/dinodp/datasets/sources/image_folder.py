"""Anybody's own images in MVTec layout: ``train/good``, ``test/<type>``, ``ground_truth/<type>/<name>_mask.png``.

``valid`` is laid out as ``test`` where it exists; its masks lie in ``ground_truth_valid``. Without it, a share of the
training subjects is held out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pandas as pd

from dinodp.datasets.manifest import image_row, make_manifest
from dinodp.datasets.sources.base import SeededOptions, SubjectOptions
from dinodp.datasets.subjects import compile_pattern, hold_out, subject_of
from dinodp.errors import InputError
from dinodp.options.base import option

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
NORMAL = "good"


class ImageFolderOptions(SeededOptions, SubjectOptions):
    """Anybody's own images in MVTec layout."""

    source: Literal["image_folder"] = "image_folder"
    subject_pattern: str | None = option(
        None, "Regular expression on the file's name with a group `subject`; absent: every image is its own subject."
    )
    valid_fraction: float = option(
        0.2, "Share of training subjects held out where there is no folder valid.", gt=0, lt=1
    )

    def prepare(self, folder: Path) -> pd.DataFrame:
        """List the images below ``root``. Raises InputError for a missing folder, an empty one, or a missing mask."""
        root = Path(self.root)
        if not root.is_dir():
            raise InputError(f"there is no folder {root} (key root); it must hold train/{NORMAL} and test/<type>.")
        others = sorted(path.name for path in (root / "train").glob("*/") if path.name != NORMAL)
        if others:
            raise InputError(f"{root / 'train'} holds the folder {others[0]}; training images are normal, in {NORMAL}.")
        rows = list(_rows(root, "train", self))
        for split in ("valid", "test"):
            if split == "test" or (root / split).is_dir():
                rows += _rows(root, split, self)
        frame = make_manifest(rows)
        if not (frame["split"] == "valid").any():
            frame = hold_out(frame, self.valid_fraction, self.seed)
        return make_manifest(frame.to_dict("records"))


def list_images(folder: Path) -> list[Path]:
    """The images directly in a folder, sorted by name. Raises InputError when it is missing or holds none."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}.")
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not images:
        raise InputError(f"the folder {folder} holds no image ({', '.join(SUFFIXES)}).")
    return images


def _rows(root: Path, split: str, options: ImageFolderOptions) -> Iterator[dict[str, object]]:
    if not (root / split).is_dir():
        raise InputError(
            f"there is no folder {root / split}; the layout is train/{NORMAL}, test/<type>, ground_truth/<type>."
        )
    pattern = compile_pattern(options.subject_pattern) if options.subject_pattern else None
    types = sorted(path for path in (root / split).iterdir() if path.is_dir())
    if not types:
        raise InputError(
            f"{root / split} holds no folder; expected {NORMAL} for normal images, any other name for anomalous ones."
        )
    for folder in types:
        label = "normal" if folder.name == NORMAL else "anomalous"
        truth = root / ("ground_truth" if split == "test" else f"ground_truth_{split}") / folder.name
        for image in list_images(folder):
            mask = _mask(image, truth) if options.masks and label == "anomalous" else None
            yield image_row(split, label, image, mask, _subject(image, root, pattern))


def _subject(image: Path, root: Path, pattern: re.Pattern[str] | None) -> str:
    return subject_of(image.stem, pattern) if pattern else image.relative_to(root).as_posix()


def _mask(image: Path, folder: Path) -> Path:
    """The mask of an anomalous image: ``<name>_mask.<any>`` or the same name."""
    for stem in (f"{image.stem}_mask", image.stem):
        for suffix in SUFFIXES:
            if (path := folder / f"{stem}{suffix}").is_file():
                return path
    raise InputError(
        f"the anomalous image {image} has no mask: expected {folder / (image.stem + '_mask.png')} "
        "(set masks: false where there are none)."
    )
