"""Anybody's own images in MVTec layout: ``train/good``, ``test/<type>``, ``ground_truth/<type>/<name>_mask.png``.

``valid`` is laid out as ``test`` where it exists; its masks lie in ``ground_truth_valid``. Without it, a share of the
training subjects is held out.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dinodp.datasets.manifest import image_row, make_manifest
from dinodp.datasets.sources.options import REQUIRED
from dinodp.datasets.subjects import compile_pattern, hold_out, subject_of
from dinodp.errors import InputError

SOURCE = "image_folder"
OPTIONS: dict[str, Any] = {
    "root": REQUIRED,
    "masks": True,  # false: image-level labels only
    "subject_pattern": None,  # with a group "subject", on the file's name; without one every image is its own subject
    "valid_fraction": 0.2,  # share of training subjects held out where there is no folder valid
    "seed": 0,
}
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
NORMAL = "good"


def prepare(options: Mapping[str, Any], folder: Path) -> pd.DataFrame:
    """List the images below ``root``. Raises InputError for a missing folder, an empty one, or a missing mask."""
    root = Path(options["root"])
    if not root.is_dir():
        raise InputError(f"there is no folder {root} (key root); it must hold train/{NORMAL} and test/<type>.")
    others = sorted(path.name for path in (root / "train").glob("*/") if path.name != NORMAL)
    if others:
        raise InputError(f"{root / 'train'} holds the folder {others[0]}; training images are normal, in {NORMAL}.")
    rows = list(_rows(root, "train", options))
    for split in ("valid", "test"):
        if split == "test" or (root / split).is_dir():
            rows += _rows(root, split, options)
    frame = make_manifest(rows)
    if not (frame["split"] == "valid").any():
        frame = hold_out(frame, options["valid_fraction"], options["seed"])
    return make_manifest(frame.to_dict("records"))


def list_images(folder: Path) -> list[Path]:
    """The images directly in a folder, sorted by name. Raises InputError when it is missing or holds none."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}.")
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not images:
        raise InputError(f"the folder {folder} holds no image ({', '.join(SUFFIXES)}).")
    return images


def _rows(root: Path, split: str, options: Mapping[str, Any]) -> Iterator[dict[str, object]]:
    if not (root / split).is_dir():
        raise InputError(
            f"there is no folder {root / split}; the layout is train/{NORMAL}, test/<type>, ground_truth/<type>."
        )
    pattern = options["subject_pattern"] and compile_pattern(options["subject_pattern"])
    types = sorted(path for path in (root / split).iterdir() if path.is_dir())
    if not types:
        raise InputError(
            f"{root / split} holds no folder; expected {NORMAL} for normal images, any other name for anomalous ones."
        )
    for folder in types:
        label = "normal" if folder.name == NORMAL else "anomalous"
        truth = root / ("ground_truth" if split == "test" else f"ground_truth_{split}") / folder.name
        for image in list_images(folder):
            mask = _mask(image, truth) if options["masks"] and label == "anomalous" else None
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
