"""Folders ``train``, ``valid``, ``test`` of NIfTI volumes, cut into 8-bit slices; segmentations lie beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd

from dinodp.datasets.manifest import SPLITS
from dinodp.datasets.sources.volume_slices import LabelledVolume, VolumeOptions, cut_volumes
from dinodp.datasets.volumes import SUFFIXES
from dinodp.datasets.walking import Found, files_in, say_beside, stem_of
from dinodp.errors import InputError
from dinodp.options.base import option


class NiftiOptions(VolumeOptions):
    """NIfTI volumes in folders train, valid and test, cut into slices."""

    source: Literal["nifti"] = "nifti"
    image_suffix: str = option("_t1", "Volumes are `<subject><image_suffix>.nii.gz`.")
    mask_suffix: str = option("_seg", "Segmentations are `<subject><mask_suffix>.nii.gz` beside them.")

    def prepare(self, folder: Path) -> pd.DataFrame:
        """Write slices and masks as PNG below ``folder/slices``.

        A slice is anomalous when its mask is not empty; a test volume without segmentation is refused, a training or
        validation volume without one is normal. Raises InputError for whatever is wrong with the volumes.
        """
        volumes = [
            self._volume(split, path)
            for split in SPLITS
            for path in _volumes(Path(self.root) / split, self.image_suffix, self.mask_suffix)
        ]
        say_beside(Path(self.root), SPLITS)
        return cut_volumes(volumes, self, folder)

    def _volume(self, split: str, path: Path) -> LabelledVolume:
        subject = _subject(path, self.image_suffix)
        return LabelledVolume(split, path, subject, subject, _segmentation(path, self, split))


def _volumes(folder: Path, suffix: str, mask_suffix: str) -> list[Path]:
    """The volumes of a split, by name."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; the root must hold {', '.join(SPLITS)}.")
    found = _without_masks(files_in(folder, SUFFIXES), suffix, mask_suffix)
    found.where(lambda path: _ends(path, suffix), "volume of another name")
    if not found.files:
        left = f"; it holds {found.left_in_words()}" if found.left_in_words() else ""
        raise InputError(f"the folder {folder} holds no volume named *{suffix}.nii.gz (key image_suffix){left}.")
    return found.say()


def _without_masks(found: Found, suffix: str, mask_suffix: str) -> Found:
    """Without the segmentations that belong to a volume."""
    masks = {path for path in found.files if _ends(path, mask_suffix) and not (suffix and _ends(path, suffix))}
    subjects = {_subject(path, suffix) for path in found.files if path not in masks and _ends(path, suffix)}
    found.files = [path for path in found.files if path not in masks or _subject(path, mask_suffix) not in subjects]
    return found


def _ends(path: Path, suffix: str) -> bool:
    return stem_of(path.name).endswith(suffix)


def _segmentation(path: Path, options: NiftiOptions, split: str) -> Path | None:
    """The segmentation beside a volume."""
    subject = _subject(path, options.image_suffix)
    for end in (*SUFFIXES, *map(str.upper, SUFFIXES)):
        if (mask := path.with_name(f"{subject}{options.mask_suffix}{end}")).is_file():
            return mask
    if split == "test":
        raise InputError(
            f"the test volume {path} has no segmentation {subject}{options.mask_suffix}.nii.gz beside it "
            "(a normal one needs an empty segmentation)."
        )
    return None


def _subject(path: Path, suffix: str) -> str:
    return stem_of(path.name).removesuffix(suffix)
