"""Write anomaly maps and masks in the geometry of the scan, and read them back."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image

from dinodp.datasets.geometry import VolumeGeometry
from dinodp.datasets.volumes import open_nifti
from dinodp.errors import InputError, one_line
from dinodp.jobs.files import replaced_file

FULL_RANGE = 65535
IMAGE_FORMATS = ("tiff", "png")
PLACE_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x",
    "srow_y", "srow_z", "pixdim", "xyzt_units",
)  # fmt: skip
Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def write_volume(path: Path, values: npt.NDArray[Any], geometry: VolumeGeometry, description: str) -> None:
    """Write a NIfTI volume that lies where a scan lies: of its header, place, voxel sizes and units are kept.

    Nothing else is, since texts and extensions may name the patient. The affine of a header is in its own unit.
    """
    affine = geometry.affine if geometry.header is None else geometry.header.get_best_affine()
    kind: Any = nib.Nifti2Image if isinstance(geometry.header, nib.Nifti2Header) else nib.Nifti1Image
    header = kind.header_class()
    if geometry.header is not None:
        for name in PLACE_FIELDS:
            header[name] = geometry.header[name]
    image = kind(values, affine, header)
    image.header.set_data_dtype(values.dtype)
    image.header["descrip"] = description.encode()[:79]
    if geometry.header is None:
        image.header.set_xyzt_units("mm")
        image.set_qform(geometry.affine, code=1)
        image.set_sform(geometry.affine, code=1)
    with replaced_file(path) as temporary:
        nib.save(image, temporary)


def write_image(path: Path, scores: Map, scored: Mask, map_range: tuple[float, float]) -> None:
    """Write scores [H, W] as float32 TIFF, or as 16-bit PNG over ``map_range``, which clips them."""
    with replaced_file(path) as temporary:
        Image.fromarray(scores if path.suffix == ".tiff" else encoded(scores, scored, map_range)).save(temporary)


def encoded(scores: Map, scored: Mask, map_range: tuple[float, float]) -> npt.NDArray[np.uint16]:
    """Scores as 16-bit integers: ``map_range`` runs from 0 to 65535, but 0 itself is kept for what was not scored."""
    low, high = map_range
    levels = np.clip(np.round((scores - low) / (high - low) * FULL_RANGE), 1, FULL_RANGE)
    return np.where(scored, levels, 0).astype(np.uint16)


def write_mask(path: Path, mask: Mask, geometry: VolumeGeometry | None) -> None:
    """Write a mask: NIfTI with 0 and 1, or PNG with 0 and 255."""
    if geometry is not None:
        write_volume(path, mask.astype(np.uint8), geometry, "anomalous above threshold, not a diagnosis")
        return
    write_picture(path, mask.astype(np.uint8) * 255)


def write_picture(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write uint8 [H, W] or [H, W, 3] as PNG."""
    with replaced_file(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def read_map(
    path: Path, map_range: tuple[float, float], outside: float
) -> tuple[Map, Mask, npt.NDArray[np.float64] | None]:
    """Scores and what was scored, as on disk, and the affine [4, 4] (None of an image).

    Raises InputError when the file cannot be read, and for a PNG that is clipped at its upper end: there the order of
    the scores is lost.
    """
    values, affine = _stored(path)
    if path.suffix != ".png":
        return values, values > np.float32(outside), affine
    if clipped := np.count_nonzero(values >= FULL_RANGE):
        raise InputError(
            f"The map {path} is clipped: {clipped} of its pixels hold {FULL_RANGE}, the highest value of 16 bits; "
            "predict with --image-format tiff."
        )
    low, high = map_range
    return (low + values / FULL_RANGE * (high - low)).astype(np.float32), values > 0, affine


def _stored(path: Path) -> tuple[Map, npt.NDArray[np.float64] | None]:
    if path.suffix not in (".png", ".tiff"):
        volume = open_nifti(path)
        return volume.voxels(), volume.affine
    try:
        with Image.open(path) as picture:
            return np.asarray(picture).astype(np.float32), None
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise InputError(f"The map {path} cannot be read ({one_line(error)}).") from error
