"""Find and read scans: PNG, JPEG, TIFF, NIfTI (2D, 3D, 4D by index) and DICOM series."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dinodp.datasets.bids import DESCRIPTION, BidsInput
from dinodp.datasets.dicom import (
    DICOM_SUFFIXES,
    DICOMDIR,
    PlacedSeries,
    is_dicom,
    is_slice,
    read_placed_series,
    series_axes,
)
from dinodp.datasets.geometry import Affine
from dinodp.datasets.volumes import AXES, SUFFIXES, NiftiVolume, open_nifti, read_nifti
from dinodp.datasets.walking import (
    COPY,
    IMAGE_SUFFIXES,
    OTHER_FORMAT,
    Found,
    copies,
    counted,
    has_suffix,
    stem_of,
    walk,
)
from dinodp.errors import InputError, require_known
from dinodp.images import read_values
from dinodp.jobs.logs import logger, reading_of
from dinodp.scans.reading.scan import Background, Scan, find_foreground

OTHER_VOLUMES = (".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".mnc", ".hdr", ".img")
NO_IMAGE = "DICOM folder without images"
SMALLEST_SIDE = 16  # pixels: below it a picture is no scan


@dataclass(frozen=True)
class ReadingOptions:
    """How scans are read: slicing ``axis``, ``index`` of the volume in a 4D file, value of the background, and the
    ``frame`` [3, 3] of oblique volumes (`VolumeGeometry`)."""

    axis: str = "axial"
    index: int | None = None
    background: Background = "auto"
    frame: Affine | None = None

    def __post_init__(self) -> None:
        require_known("axis", self.axis, AXES)
        if isinstance(self.background, str):
            require_known("background", self.background, ("auto", "none"))


def find_scans(path: Path, pattern: str | None = None) -> list[tuple[str, Path]]:
    """Names and paths of the scans: one file, one DICOM series, or all below a folder, sorted by path.

    ``pattern`` (such as ``*_t1.nii.gz``) selects by the name of the file or of the folder of a DICOM series. The name
    of a scan is its path below the folder, without suffix. Raises InputError when there is nothing to read.
    """
    if not path.exists():
        raise InputError(f"There is no file or folder {path}.")
    if path.is_file():
        _require_readable(path)
        return [(stem_of(path.name), path)]
    if pattern is None and (path / DESCRIPTION).is_file():
        logger.warning("%s is a BIDS data set, of which all is read: --bids suffix=NAME chooses.", path)
    below = _series_and_files(path)
    if not below.files:
        said = f" It holds {below.left_in_words()}." if below.left_in_words() else ""
        raise InputError(
            f"The folder {path} holds no scan: PNG, JPEG, TIFF, NIfTI (.nii, .nii.gz) or DICOM series are read.{said}"
        )
    found = below.say()
    chosen = [item for item in found if pattern is None or fnmatch(item.name, pattern)]
    if not chosen:
        raise InputError(f"None of the {len(found)} scans below {path} is named {pattern}; one is {found[0].name}.")
    return list(zip(_names(chosen, path), chosen, strict=True))


def find_all(
    paths: Sequence[Path], pattern: str | None = None, *, with_copies: bool = True, bids: BidsInput | None = None
) -> list[tuple[str, Path]]:
    """Names and paths of the scans below several paths, or of the BIDS data sets there; without ``with_copies``, of
    files with the same bytes the first one. Raises InputError when two scans would have one name."""
    found = [item for path in paths for item in (find_scans(path, pattern) if bids is None else bids.find(path))]
    again = {} if with_copies else copies(path for _, path in found if path.is_file())
    if again:
        copy, first = next(iter(again.items()))
        logger.warning("%s left out (such as %s, of %s).", counted(len(again), COPY), copy, first)
    seen: dict[str, Path] = {}
    for name, path in found:
        if name in seen:
            raise InputError(f"{seen[name]} and {path} would both be named {name}: give a folder that holds both.")
        seen[name] = path
    return [(name, path) for name, path in found if path not in again]


def _series_and_files(folder: Path) -> Found:
    """Image and NIfTI files, and folders with DICOM images, below a folder and itself."""
    found = walk(folder)
    single = [file for file in found.files if has_suffix(file, (*IMAGE_SUFFIXES, *SUFFIXES))]
    dicom: dict[Path, list[Path]] = {}
    for file in sorted(set(found.files).difference(single)):
        if is_dicom(file):
            dicom.setdefault(file.parent, []).append(file)
        elif file.name != DICOMDIR:
            found.left[OTHER_FORMAT].append(file)
    series = [place for place, files in dicom.items() if any(map(is_slice, files))]
    found.left[NO_IMAGE] += [files[0] for place, files in dicom.items() if place not in series]
    found.files = sorted([*series, *single])
    return found


def _require_readable(file: Path) -> None:
    name = file.name.lower()
    if name.endswith(OTHER_VOLUMES):
        raise InputError(f"{file} is in a format that is not read: convert it to NIfTI (.nii.gz).")
    if name.endswith(DICOM_SUFFIXES):
        raise InputError(f"{file} is one DICOM file: give the folder of its series, {file.parent}.")
    if not name.endswith((*IMAGE_SUFFIXES, *SUFFIXES)):
        raise InputError(f"{file} is no scan: PNG, JPEG, TIFF, NIfTI (.nii, .nii.gz) or DICOM series are read.")


def _names(paths: list[Path], root: Path) -> list[str]:
    """One name per scan: folders joined by two underscores; with the suffix where two would be alike."""
    full = ["__".join(path.relative_to(root).parts) or root.name for path in paths]
    short = [stem_of(name) for name in full]
    taken = {name for name in short if short.count(name) > 1} if len(set(short)) < len(short) else set()
    return [name.replace(".", "_") if stem in taken else stem for name, stem in zip(full, short, strict=True)]


def read_scan(name: str, path: Path, options: ReadingOptions) -> Scan:
    """Read one scan. Raises InputError, in one sentence, for whatever is wrong with it."""
    with reading_of(path):
        return _read(name, path, options)


def _read(name: str, path: Path, options: ReadingOptions) -> Scan:
    if path.is_dir():
        return volume_scan(name, path, options, *read_placed_series(path))
    if path.name.lower().endswith(SUFFIXES):
        return volume_scan(name, path, options, *read_nifti(path, options.index))
    if options.index is not None:
        raise InputError(f"{path} is an image: an index ({options.index}) is for 4D volumes.")
    return image_scan(name, path, read_values(path), options)


def axes_of(path: Path, options: ReadingOptions) -> Affine | None:
    """Along which directions the voxels of a volume lie [4, 4], by its header; None of an image, and of what cannot be
    read, which is told when it is."""
    try:
        if path.is_dir():
            return series_axes(path)
        return open_nifti(path, options.index).affine if path.name.lower().endswith(SUFFIXES) else None
    except InputError:
        return None


def image_scan(name: str, path: Path, stored: npt.NDArray[Any], options: ReadingOptions) -> Scan:
    """A scan of an image, uint8 [H, W, 3] or more bits [H, W]; equal channels are one. Raises InputError."""
    if min(stored.shape[:2]) < SMALLEST_SIDE:
        raise InputError(
            f"{path} measures {stored.shape[1]} x {stored.shape[0]} pixels; at least {SMALLEST_SIDE} are needed."
        )
    depth = 8 if stored.dtype == np.uint8 else 16
    if stored.ndim == 3 and (stored == stored[..., :1]).all():
        stored = stored[..., 0]
    values = stored.astype(np.float32)[None]
    return Scan(name, path, values, find_foreground(values, options.background, "image", path), None, depth)


def volume_scan(
    name: str,
    path: Path,
    options: ReadingOptions,
    voxels: npt.NDArray[np.float32],
    volume: NiftiVolume | PlacedSeries,
) -> Scan:
    """A scan of the voxels, as on disk, of a volume. Raises InputError for slices that are too small."""
    placed = volume.geometry(AXES[options.axis], options.frame)
    values = np.ascontiguousarray(placed.to_stack(voxels))
    if min(values.shape[1:]) < SMALLEST_SIDE:
        size = " x ".join(map(str, placed.shape))
        raise InputError(
            f"{path} ({size} voxels) has {options.axis} slices of {values.shape[2]} x {values.shape[1]} pixels; at "
            f"least {SMALLEST_SIDE} x {SMALLEST_SIDE} are needed: was the model fitted along another axis?"
        )
    return Scan(name, path, values, find_foreground(values, options.background, "volume", path), placed)
