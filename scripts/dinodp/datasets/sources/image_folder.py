"""Anybody's own images in MVTec layout: ``train/good``, ``test/<type>``, ``ground_truth/<type>/<name>_mask.png``.

``valid`` is laid out as ``test`` where it exists; its masks lie in ``ground_truth_valid``. Without it, a share of the
training subjects is held out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from dinodp.datasets.manifest import SPLITS, image_row, make_manifest
from dinodp.datasets.sources.base import SeededOptions, SubjectOptions
from dinodp.datasets.sources.spelling import NORMAL as NORMAL_WORDS
from dinodp.datasets.sources.spelling import means, say_unused
from dinodp.datasets.subjects import hold_out, subjects_of
from dinodp.datasets.walking import IMAGE_SUFFIXES, files_in, folders_in, require_folder, walk
from dinodp.errors import InputError
from dinodp.jobs.logs import logger
from dinodp.options.base import option

NORMAL = "good"
LabelledFile = tuple[str, str, Path, Path | None]  # split, label, image, mask


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
        """List the images below ``root``.

        Raises InputError for a missing folder, an empty one, a missing mask, and for a folder whose name means a split
        or a label, but is not one that is read.
        """
        root = Path(self.root)
        require_folder(root, f" (key root); it must hold train/{NORMAL} and test/<type>")
        files = [
            file
            for split in SPLITS
            if split != "valid" or (root / split).is_dir()
            for file in _files(root, split, self.reads_masks)
        ]
        _say_unused(root, files)
        boxes = self.boxes_of([(label, image) for _, label, image, _ in files], root)
        shown, subjects = self.scaled([image for _, _, image, _ in files], folder), _subjects(files, root, self)
        frame = make_manifest(
            image_row(split, label, image, mask, subject, boxes=own)
            for (split, label, _, mask), subject, image, own in zip(files, subjects, shown, boxes, strict=True)
        )
        if not (frame["split"] == "valid").any():
            frame = hold_out(frame, self.valid_fraction, self.seed)
        return make_manifest(frame.to_dict("records"))


def _files(root: Path, split: str, with_masks: bool) -> Iterator[LabelledFile]:
    """(split, label, image, mask or None) of every image of a split."""
    for folder in _types(root, split):
        label = "normal" if folder.name == NORMAL else "anomalous"
        masks = _masks(root / _truth(split) / folder.name) if with_masks else {}
        for image in _images(folder):
            mask = masks.get(f"{image.stem}_mask") or masks.get(image.stem)
            if with_masks and label == "anomalous" and mask is None:
                expected = root / _truth(split) / folder.name / f"{image.stem}_mask.png"
                raise InputError(
                    f"the anomalous image {image} has no mask: expected {expected} "
                    "(set masks: false where there are none)."
                )
            yield split, label, image, mask


def _truth(split: str) -> str:
    return "ground_truth" if split == "test" else f"ground_truth_{split}"


def _types(root: Path, split: str) -> list[Path]:
    """The class folders of a split. Raises InputError for none, and for one that is normal under another name."""
    require_folder(root / split, f"; the layout is train/{NORMAL}, test/<type>, ground_truth/<type>")
    types = folders_in(root / split)
    if not types:
        raise InputError(
            f"{root / split} holds no folder; expected {NORMAL} for normal images, any other name for anomalous ones."
        )
    others = [path.name for path in types if path.name != NORMAL]
    if split == "train" and others:
        raise InputError(f"{root / split} holds the folder {others[0]}; training images are normal, in {NORMAL}.")
    if wrong := [name for name in others if means(name, NORMAL_WORDS)]:
        raise InputError(
            f"{root / split} holds the folder {wrong[0]}, which would count as anomalous: normal images belong in "
            f"{NORMAL}, in small letters."
        )
    if len(others) == len(types):
        logger.warning("%s holds no folder %s: all its images count as anomalous.", root / split, NORMAL)
    return types


def _images(folder: Path) -> list[Path]:
    """The images of a class. Raises InputError where there is none."""
    found = files_in(folder)
    if not found.files:
        left = f"; it holds {found.left_in_words()}" if found.left_in_words() else ""
        raise InputError(f"the folder {folder} holds no image ({', '.join(IMAGE_SUFFIXES)}){left}.")
    return found.files


def _masks(folder: Path) -> dict[str, Path]:
    """Masks by their name without suffix; none where there is no folder."""
    return {path.stem: path for path in files_in(folder).files} if folder.is_dir() else {}


def _subjects(files: Sequence[LabelledFile], root: Path, options: ImageFolderOptions) -> list[str]:
    images = [image for _, _, image, _ in files]
    own = [image.relative_to(root).as_posix() for image in images]
    return subjects_of([image.stem for image in images], options.subject_pattern, own)


def _say_unused(root: Path, files: Sequence[LabelledFile]) -> None:
    """Say which files have no place in the layout; masks have one, also where they are not asked for."""
    used = [image for _, _, image, _ in files] + [mask for *_, mask in files if mask is not None]
    folders = {name for *_, image, _ in files for name in image.relative_to(root).parts[:-1]}
    ignored = [] if any(mask for *_, mask in files) else [root / _truth(split) for split in SPLITS]
    used += [path for folder in ignored if folder.is_dir() for path in walk(folder).files]
    say_unused(root, used, folders | {_truth(split) for split in ("valid", "test")})
