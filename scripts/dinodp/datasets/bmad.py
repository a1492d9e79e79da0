"""BMAD's data sets in the layouts in which they circulate (Bao et al., CVPR Workshops 2024)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dinodp.datasets.bmad_layouts import LABELS, Layout, list_images, recognise
from dinodp.datasets.options import REQUIRED
from dinodp.datasets.subjects import compile_pattern, hold_out, subject_of
from dinodp.errors import InputError
from dinodp.logs import logger
from dinodp.manifest import image_row, make_manifest

SOURCE = "bmad"
OPTIONS: dict[str, Any] = {
    "root": REQUIRED,
    "subject_pattern": r"^(?P<subject>.+)_\d+$",  # on the file's name: what precedes the slice number
    "valid_fraction": None,  # share of training subjects held out where the data set has no validation split
    "seed": 0,  # of that choice
}


def prepare(options: Mapping[str, Any], folder: Path) -> pd.DataFrame:
    """List images and masks below ``root``. Raises InputError for an unknown layout or a missing mask."""
    root, layout = recognise(Path(options["root"]))
    logger.info("%s has the layout: %s.", root, layout.name)
    pattern = compile_pattern(options["subject_pattern"])
    frame = make_manifest(
        image_row(split, label, image, mask, subject_of(image.stem, pattern), image.stem.rpartition("_")[2])
        for split, label, image, mask in _files(root, layout)
    )
    if (frame["split"] == "valid").any():
        return frame
    if options["valid_fraction"] is None:
        raise InputError(f"{root} has no split valid; set valid_fraction to hold out a share of the training subjects.")
    return make_manifest(hold_out(frame, options["valid_fraction"], options["seed"]).to_dict("records"))


def _files(root: Path, layout: Layout) -> Iterator[tuple[str, str, Path, Path | None]]:
    """(split, label, image, mask or None) of every image."""
    for image in list_images(root / layout.train):
        yield "train", "normal", image, None
    for split in ("valid", "test"):
        for label in LABELS:
            masks = {
                mask.stem: mask
                for folder in layout.folders(root, layout.masks, split, label)
                for mask in list_images(folder)
            }
            for folder in layout.folders(root, layout.images, split, label):
                for image in list_images(folder):
                    yield split, label, image, _mask(image, masks, label)


def _mask(image: Path, masks: Mapping[str, Path], label: str) -> Path | None:
    """The mask of the same name; a normal image may go without."""
    mask = masks.get(image.stem) or masks.get(f"{image.stem}_mask")
    if mask is None and label == "anomalous":
        raise InputError(f"the anomalous image {image} has no mask of the same name among {len(masks)} masks.")
    return mask
