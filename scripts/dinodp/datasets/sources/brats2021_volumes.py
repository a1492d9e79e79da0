"""BMAD's brain slices rebuilt from the volumes of BraTS2021, task 1 (Baid et al., 2021; Bao et al., 2024).

Slice j is the array [:, :, j] as BraTS stores it (axes to the left, back and top). Image and label go through
matplotlib's colour map `bone`, each scaled from its own minimum to its own maximum, and are written by `imsave`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from dinodp.datasets.manifest import image_row, make_manifest
from dinodp.datasets.sources.base import RootedOptions, SeededOptions
from dinodp.datasets.sources.bmad_layouts import list_images
from dinodp.datasets.volumes import AXES, SUFFIXES, Volume, open_volume
from dinodp.errors import InputError
from dinodp.jobs.files import replaced_folder, write_json
from dinodp.jobs.logs import logger, progress
from dinodp.options.base import option

# The patients of BMAD's normal slices (424 train, 39 valid, 162 test), from the file names of the released data set.
PATIENTS = Path(__file__).with_name("brats2021_patients.json")
SHAPE = (240, 240, 155)
N_VALID_ANOMALOUS = 11
NORMAL_SLICES = range(60, 100)  # those whose segmentation is empty
ANOMALOUS_SLICES = {"valid": range(60, 91, 10), "test": range(60, 93, 8)}
Selection = dict[str, tuple[str, str]]  # patient: (split, label)


class Brats2021Options(SeededOptions, RootedOptions):
    """BMAD's brain slices rebuilt from the volumes of BraTS2021."""

    source: Literal["brats2021_volumes"] = "brats2021_volumes"
    patients: str | None = option(None, "File with the lists of BMAD's patients; absent: that of resources/bmad.")
    released_copy: str | None = option(
        None, "A copy of BMAD's BraTS2021_slice: tells the 11 anomalous validation patients, and is compared."
    )
    allow_missing: bool = option(False, "Build from the patients that are there.")

    def places(self) -> list[str]:
        """The folders, and the list of patients."""
        return [place for place in (self.root, self.released_copy, self.patients) if place]

    def prepare(self, folder: Path) -> pd.DataFrame:
        """Write the slices below ``folder/BraTS2021_slice`` in BMAD's layout and compare them with ``released_copy``.

        Raises InputError for missing patients or files, volumes of another shape, and voxels that are not finite.
        """
        root = Path(self.root)
        selection = _select(root, self)
        with replaced_folder(folder / "BraTS2021_slice") as target:
            tasks = progress(sorted(selection.items()), "rebuild", unit="patient")
            rows = [row for patient, place in tasks for row in _write(root, patient, *place, target)]
        final = folder / "BraTS2021_slice"
        frame = make_manifest(
            image_row(split, label, final / image, final / mask if mask else None, patient, index)
            for split, label, image, mask, patient, index in rows
        )
        if self.released_copy:
            report = compare_copies(final, Path(self.released_copy))
            write_json(folder / "comparison.json", report)
            logger.info("Compared with %s: %s.", self.released_copy, report)
        return frame


def _select(root: Path, options: Brats2021Options) -> Selection:
    """Split and label of every patient."""
    if not root.is_dir():
        raise InputError(f"there is no folder {root} (key root); it must hold BraTS2021_<id> folders.")
    here = {path.name.removeprefix("BraTS2021_") for path in root.glob("BraTS2021_*") if path.is_dir()}
    lists = json.loads(Path(options.patients or PATIENTS).read_text(encoding="utf-8"))
    selection: Selection = {
        patient: (split, "normal")
        for split, key in (("train", "train"), ("valid", "valid_normal"), ("test", "test_normal"))
        for patient in lists[f"{key}_patients"]
    }
    if missing := sorted(set(selection) - here):
        if not options.allow_missing or not here:
            raise InputError(
                f"{root} lacks {len(missing)} of {len(selection)} patients with normal slices, the first is "
                f"BraTS2021_{missing[0]} (allow_missing: true builds from those that are there)."
            )
        logger.info("%d patients are missing: the data set is smaller than BMAD's.", len(missing))
    anomalous = sorted(here - set(selection))
    valid = _anomalous_validation(anomalous, options)
    return {patient: place for patient, place in selection.items() if patient in here} | {
        patient: ("valid" if patient in valid else "test", "anomalous") for patient in anomalous
    }


def _anomalous_validation(patients: list[str], options: Brats2021Options) -> set[str]:
    """The 11 patients of the anomalous validation slices: those of a released copy, else drawn from the seed."""
    if copy := options.released_copy:
        names = {path.stem.rpartition("_")[0] for path in _slices(Path(copy), "valid", ("Ungood", "ungood"), "img")}
        if not names:
            raise InputError(f"the released copy {copy} has no images in valid/Ungood/img.")
        logger.info("The %d anomalous validation patients are those of %s.", len(names), copy)
        return names
    count = min(N_VALID_ANOMALOUS, len(patients) // 2)
    chosen = sorted(np.random.default_rng(options.seed).choice(patients, size=count, replace=False)) if count else []
    logger.info("BMAD's anomalous validation patients are not recorded; chosen from the seed: %s.", ", ".join(chosen))
    return set(chosen)


def _slices(root: Path, split: str, labels: tuple[str, ...], kind: str) -> list[Path]:
    return [path for label in labels for path in list_images(root / split / label / kind)]


def _write(
    root: Path, patient: str, split: str, label: str, target: Path
) -> Iterator[tuple[str, str, str, str, str, int]]:
    """Write the slices of one patient; yields (split, label, image, mask, patient, slice), files below ``target``."""
    image, segmentation = (_volume(root / f"BraTS2021_{patient}", kind) for kind in ("flair", "seg"))
    if label == "normal":
        indices = [index for index in NORMAL_SLICES if not segmentation[:, :, index].any()]
    else:
        indices = list(ANOMALOUS_SLICES[split])
    folder = f"{split}/{'good' if label == 'normal' else 'Ungood'}"
    kinds = {"img": image} if split == "train" else {"img": image, "label": segmentation}
    for index in indices:
        middle = {kind: "" if split == "train" else f"{kind}/" for kind in kinds}
        names = {kind: f"{folder}/{middle[kind]}{patient}_{index}.png" for kind in kinds}
        for kind, volume in kinds.items():
            write_slice(volume[:, :, index], target / names[kind])
        yield split, label, names["img"], names.get("label", ""), patient, index


def write_slice(values: npt.NDArray[np.float32], path: Path) -> None:
    """Write one slice [240, 240] as BMAD's were: RGBA through `bone`, from its minimum to its maximum."""
    from matplotlib.image import imsave  # a second of imports that the workflow need not pay

    path.parent.mkdir(parents=True, exist_ok=True)
    imsave(path, values, cmap="bone", format="png")


def _volume(folder: Path, kind: str) -> Volume:
    """The voxels of a patient's volume [240, 240, 155], in the orientation in which BraTS stores them."""

    paths = [folder / f"{folder.name}_{kind}{end}" for end in SUFFIXES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise InputError(f"there is no {paths[0]}: every patient needs _flair.nii.gz and _seg.nii.gz.")
    volume = open_volume(path)
    canonical = volume.geometry(AXES["axial"]).to_canonical(volume.voxels())
    values: Volume = canonical[::-1, ::-1]  # to the left, back and top
    if values.shape != SHAPE:
        shape = " x ".join(map(str, values.shape))
        raise InputError(f"{path} has the shape {shape}; volumes of BraTS2021 have 240 x 240 x 155.")
    return values


def compare_copies(ours: Path, theirs: Path) -> dict[str, int]:
    """Compare two folders in BMAD's layout by name and pixels: counts of equal, different, only here, only there."""
    if not theirs.is_dir():
        raise InputError(f"there is no released copy {theirs} to compare with.")
    here, there = ({path.relative_to(root).as_posix(): path for path in root.rglob("*.png")} for root in (ours, theirs))
    both = sorted(set(here) & set(there))
    equal = sum(_same_pixels(here[name], there[name]) for name in both)
    return {
        "equal": equal,
        "different": len(both) - equal,
        "only_here": len(set(here) - set(there)),
        "only_there": len(set(there) - set(here)),
    }


def _same_pixels(first: Path, second: Path) -> bool:
    with Image.open(first) as one, Image.open(second) as two:
        return one.size == two.size and bool(np.array_equal(np.asarray(one), np.asarray(two)))
