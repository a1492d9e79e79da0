"""BMAD's data sets in the layouts in which they circulate (Bao et al., CVPR Workshops 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from dinodp.datasets.manifest import image_row, make_manifest
from dinodp.datasets.sources.base import SeededOptions, SubjectOptions
from dinodp.datasets.sources.bmad_layouts import LABELS, SPLITS, Layout, list_images, recognise
from dinodp.datasets.sources.spelling import say_unused
from dinodp.datasets.subjects import hold_out, subjects_of
from dinodp.errors import InputError
from dinodp.jobs.logs import logger
from dinodp.options.base import option


class BmadOptions(SeededOptions, SubjectOptions):
    """BMAD's data sets in all the layouts in which they circulate."""

    source: Literal["bmad"] = "bmad"
    subject_pattern: str = option(
        r"^(?P<subject>.+)_\d+$", "Regular expression on the file's name; its group `subject` names the patient."
    )
    valid_fraction: float | None = option(
        None, "Share of training subjects held out where the data set has no validation split.", gt=0, lt=1
    )

    def prepare(self, folder: Path) -> pd.DataFrame:
        """List images and masks below ``root``. Raises InputError for an unknown layout or a missing mask."""
        root, layout = recognise(Path(self.root), self.reads_masks)
        logger.info("%s has the layout: %s.", root, layout.name)
        files = list(_files(root, layout, self.reads_masks))
        _say_unused(root, layout, files)
        given = self.subject_pattern != type(self).model_fields["subject_pattern"].default
        own = [image.relative_to(root).as_posix() for _, _, image, _ in files]
        subjects = subjects_of([image.stem for _, _, image, _ in files], self.subject_pattern, own, is_given=given)
        boxes = self.boxes_of([(label, image) for _, label, image, _ in files], root)
        shown = self.scaled([image for _, _, image, _ in files], folder)
        frame = make_manifest(
            image_row(split, label, picture, mask, subject, image.stem.rpartition("_")[2], around)
            for (split, label, image, mask), subject, picture, around in zip(files, subjects, shown, boxes, strict=True)
        )
        if (frame["split"] == "valid").any():
            return frame
        if self.valid_fraction is None:
            raise InputError(
                f"{root} has no split valid; set valid_fraction to hold out a share of the training subjects."
            )
        return make_manifest(hold_out(frame, self.valid_fraction, self.seed).to_dict("records"))


def _say_unused(root: Path, layout: Layout, files: Sequence[tuple[str, str, Path, Path | None]]) -> None:
    """Say which files below the root have no place in the layout; masks have one, also where they are not asked for."""
    folders = {
        folder
        for pattern in (layout.images, layout.masks)
        for split in SPLITS
        for label in LABELS
        for folder in layout.folders(root, pattern, split, label)
    }
    masks = [mask for folder in folders for mask in list_images(folder)]
    parts = [folder.relative_to(root).parts for folder in (*folders, root / layout.train)]
    say_unused(root, [*masks, *(image for _, _, image, _ in files)], {name for names in parts for name in names})


def _files(root: Path, layout: Layout, with_masks: bool) -> Iterator[tuple[str, str, Path, Path | None]]:
    """(split, label, image, mask or None) of every image."""
    for image in list_images(root / layout.train):
        yield "train", "normal", image, None
    for split in (split for split in ("valid", "test") if layout.has_split(root, split)):
        for label in LABELS:
            folders = list(layout.folders(root, layout.images, split, label))
            images = [image for folder in folders for image in list_images(folder)]
            masks = _masks(root, layout, split, label, images) if with_masks else {}
            for image in images:
                if with_masks and label == "anomalous" and image.stem not in masks:
                    raise InputError(
                        f"the anomalous image {image} has no mask of the same name among {len(masks)} masks."
                    )
                yield split, label, image, masks.get(image.stem)


def _masks(root: Path, layout: Layout, split: str, label: str, images: Sequence[Path]) -> dict[str, Path]:
    """Masks by the name of their image. Raises InputError for a mask without an image."""
    folders = layout.folders(root, layout.masks, split, label)
    masks = {mask.stem.removesuffix("_mask"): mask for folder in folders for mask in list_images(folder)}
    if orphans := sorted(set(masks) - {image.stem for image in images}):
        raise InputError(f"the mask {masks[orphans[0]]} has no image of the same name among {len(images)} images.")
    return masks
