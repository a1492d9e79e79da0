"""Volumes to 8-bit slices: NIfTI files, an intensity window, padding to a common square."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dinodp.datasets.geometry import Affine, VolumeGeometry, require_affine, require_size
from dinodp.datasets.walking import VOLUME_SUFFIXES
from dinodp.errors import InputError, one_line
from dinodp.jobs.logs import logger

Volume = npt.NDArray[np.float32]
Foreground = npt.NDArray[np.bool_]
Grey = npt.NDArray[np.uint8]
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
SUFFIXES = VOLUME_SUFFIXES
MAX_VOXELS = 2**30  # 4 GiB as float32; a whole-body CT has half of them
MAX_DEFLATION = 1032  # bytes that one of a compressed file can become, by its format
MM_PER_UNIT = (1.0, 1000.0, 1.0, 0.001)  # of the codes of NIfTI: unknown, m, mm, micrometre
SAME_SIZE = 0.01  # relative difference between two statements of a voxel's size that is rounding
NO_VOLUMES = (  # in the names of intents (NIfTI-1 and -2): surfaces, transformations, connectivity
    "matrix", "vector", "pointset", "triangle", "quaternion", "node index", "shape", "coef", "disp field", "Conn",
)  # fmt: skip
SAME_SPACING = 0.05  # relative difference between pixels that are not resampled
LABEL_ROUNDING = 1e-3  # of labels that a slope in the header scales
PERCENTILES = (0.5, 99.5)  # of the foreground: where the grey values of a volume begin and end


@dataclass(frozen=True)
class NiftiVolume:
    """One volume of a NIfTI file, its voxels not yet read: the one of ``index`` where the file holds several.

    ``shape`` is that of the one volume, with two or three dimensions; ``affine`` [4, 4] takes voxel indices to mm,
    whatever the unit of the header.
    """

    path: Path
    image: Any
    shape: tuple[int, ...]
    affine: Affine
    index: int | None = None

    def geometry(self, axis: int, frame: Affine | None = None) -> VolumeGeometry:
        """Where its voxels lie, sliced along a canonical ``axis`` (of a ``frame``)."""
        return VolumeGeometry(self.shape, self.affine, axis, self.image.header, frame)

    def voxels(self) -> Volume:
        """The voxels as on disk, with slope and intercept. Raises InputError for damaged ones, NaN and infinity."""
        _require_held(self.image, self.path)
        try:
            stored = self.image.dataobj if self.index is None else self.image.dataobj[:, :, :, self.index]
            values: Volume = np.asanyarray(stored).astype(np.float32).reshape(self.shape)
        except Exception as error:  # truncated or damaged compressed data
            raise InputError(f"{self.path} is damaged: its voxels cannot be read ({one_line(error)}).") from error
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            raise InputError(f"{self.path} holds {count} voxels that are not finite (NaN or infinity).")
        return values

    def stack(self, axis: int, frame: Affine | None = None) -> Volume:
        """Upright slices [slice, row, column] along a canonical ``axis``. Raises InputError as `voxels` does."""
        stack: Volume = self.geometry(axis, frame).to_stack(self.voxels())
        return stack


def open_nifti(path: Path, index: int | None = None) -> NiftiVolume:
    """A volume of two or three dimensions, or the one of ``index`` of four.

    Raises InputError when the file is missing, empty or unreadable, for voxels that are not grey, another number of
    dimensions, an index that does not fit them, an affine that cannot be inverted, and a size that no person has.
    """
    return volume_of(path, _opened(path), index)


def volume_of(path: Path, image: Any, index: int | None = None) -> NiftiVolume:
    """As `open_nifti`, of an image of nibabel's that need not be in a file; ``path`` is what it is called."""
    _require_grey_volume(path, image)
    return _placed(path, image, _shape_of_volume(image.shape, index, path), index)


def open_volume(path: Path) -> NiftiVolume:
    """As `open_nifti`, but of three dimensions only, as the volumes of a data set are."""
    image = _opened(path)
    if len(_squeezed(image.shape)) > 3 or len(image.shape) < 3:
        raise InputError(f"{path} has the shape {_in_words(image.shape)}; a volume must have three dimensions.")
    return _placed(path, image, image.shape[:3])


def open_mask(path: Path) -> NiftiVolume:
    """As `open_nifti`, but of masks: one with a channel per class is refused in words that fit it."""
    image = _opened(path)
    if len(_squeezed(image.shape)) > 3:
        raise InputError(
            f"The mask {path} has the shape {_in_words(image.shape)}, such as one channel per class: write one volume "
            "of labels, 0 where there is no lesion."
        )
    return _placed(path, image, _shape_of_volume(image.shape, None, path))


def _placed(path: Path, image: Any, shape: tuple[int, ...], index: int | None = None) -> NiftiVolume:
    """A volume with its place in mm. Raises InputError where that is not known, or is none of a person."""
    _require_sizes(image, path)
    affine = np.diag([*[_mm_per_unit(image, path)] * 3, 1.0]) @ image.affine
    require_affine(affine, path)
    require_size(affine, shape, path)
    return NiftiVolume(path, image, shape, affine, index)


def _mm_per_unit(image: Any, path: Path) -> float:
    code = int(image.header["xyzt_units"]) % 8  # the rest is the unit of time
    if code >= len(MM_PER_UNIT):
        raise InputError(f"{path} states its voxel sizes in an unknown unit (code {code}): 1 (m), 2 (mm) or 3 (µm).")
    return MM_PER_UNIT[code]


def _require_sizes(image: Any, path: Path) -> None:
    """What a header says of sizes in two places, and of the orientation not at all, is told; raises InputError where a
    size is 0 and nothing else in the header says it."""
    forms = [int(image.header[name]) for name in ("sform_code", "qform_code")]
    stated = np.abs(np.asarray(_raw_header(path, image)["pixdim"], dtype=np.float64)[1:4])[: len(image.shape)]
    if forms[0] == 0 and not (stated > 0).all():
        raise InputError(f"{path} has a voxel size of 0 in its header: how large its voxels are is not known.")
    if not any(forms):
        logger.warning("%s does not say how it is oriented: taken as stored from right to left.", path)
    sizes = np.linalg.norm(image.affine[:3, :3], axis=0)[: len(stated)]
    if forms[0] and (stated > 0).all() and (np.abs(stated - sizes) > SAME_SIZE * stated).any():
        said, used = (" x ".join(f"{size:.4g}" for size in item) for item in (stated, sizes))
        logger.warning("%s states voxels of %s, but its affine has %s: the affine is used.", path, said, used)


def _raw_header(path: Path, image: Any) -> Any:
    """The header as it is stored: nibabel replaces sizes of 0 by 1."""
    from nibabel.openers import ImageOpener

    if not path.is_file():  # in memory
        return image.header
    with ImageOpener(str(path)) as file:
        return type(image.header).from_fileobj(file, check=False)


def read_nifti(path: Path, index: int | None = None) -> tuple[Volume, NiftiVolume]:
    """Voxels float32 as on disk, and the volume that they are of.

    Raises InputError as `open_nifti` and `voxels` do.
    """
    volume = open_nifti(path, index)
    return volume.voxels(), volume


def _opened(path: Path) -> Any:
    import nibabel as nib  # half a second that the workflow need not pay

    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes).")
    try:
        image: Any = nib.load(path)
    except Exception as error:  # nibabel raises many kinds for damaged files
        raise InputError(f"{path} is not a readable NIfTI volume ({one_line(error)}).") from error
    _require_grey_volume(path, image)
    return image


def _require_grey_volume(path: Path, image: Any) -> None:
    """Raise InputError for surfaces, connectivity, transformations, colour and complex numbers in NIfTI."""
    import nibabel as nib

    try:
        intent = str(image.header.get_intent()[0]) if isinstance(image, nib.Nifti1Pair) else "Conn"
    except Exception as error:  # an intent that nibabel does not know
        raise InputError(f"{path} is not a readable NIfTI volume ({one_line(error)}).") from error
    if any(word in intent for word in NO_VOLUMES):
        what = intent if isinstance(image, nib.Nifti1Pair) else type(image).__name__
        raise InputError(f"{path} is NIfTI, but no volume of grey values ({what}): leave it out.")
    kind = image.get_data_dtype()
    if kind.names is not None or kind.kind == "c":
        raise InputError(f"{path} holds {'complex' if kind.kind == 'c' else 'colour'} voxels; only grey ones are read.")


def _require_held(image: Any, path: Path) -> None:
    """Raise InputError, before memory is taken, for more voxels than are read, or than the file can hold."""
    voxels = math.prod(image.shape[:3])
    if voxels > MAX_VOXELS:
        raise InputError(f"{path} announces {voxels} voxels; at most {MAX_VOXELS} are read.")
    if not path.is_file():  # in memory
        return
    size = path.stat().st_size * (MAX_DEFLATION if path.suffix.lower() == ".gz" else 1)
    needed = math.prod(image.shape) * image.get_data_dtype().itemsize
    if needed > size:
        raise InputError(
            f"{path} is damaged: its voxels cannot be read ({needed} bytes are announced, it can hold {size})."
        )


def _in_words(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without trailing ones, at least two long."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _shape_of_volume(shape: tuple[int, ...], index: int | None, path: Path) -> tuple[int, ...]:
    """Shape of the one volume that is read."""
    found, text = _squeezed(shape), _in_words(shape)
    if not 2 <= len(found) <= 4:
        raise InputError(f"{path} has the shape {text}; two to four dimensions are read.")
    if len(found) == 4:
        if index is None:
            raise InputError(f"{path} holds {found[3]} volumes ({text}): choose one by its index, 0 to {found[3] - 1}.")
        if not 0 <= index < found[3]:
            raise InputError(f"{path} holds {found[3]} volumes: the index {index} is not one of 0 to {found[3] - 1}.")
        return found[:3]
    if index is not None:
        raise InputError(f"{path} holds one volume ({text}): leave out the index {index}.")
    return found if len(found) == 3 else shape[:3]


def labelled(labels: Volume, path: Path) -> npt.NDArray[np.bool_]:
    """Where a mask's labels are not zero. Raises InputError for probabilities, negative and broken numbers."""
    rounded = np.round(labels)
    is_broken = bool((np.abs(labels - rounded) > LABEL_ROUNDING).any())
    if is_broken and labels.min() >= 0 and labels.max() <= 1:
        raise InputError(
            f"The mask {path} holds probabilities from 0 to 1: write it as labels, such as 1 where it exceeds 0.5."
        )
    if is_broken or rounded.min() < 0:
        raise InputError(f"The mask {path} must hold labels 0, 1, 2, ..., not negative or broken numbers.")
    found: npt.NDArray[np.bool_] = rounded > 0
    return found


def require_foreground(foreground: Foreground, name: object) -> None:
    """Raise InputError when nothing of a volume is foreground."""
    if not foreground.any():
        raise InputError(f"{name} has no foreground: every voxel has the background's value.")


def window_of(inside: Volume, percentiles: Sequence[float], name: object) -> tuple[float, float]:
    """The values [n] of a foreground that become black and white: two percentiles, or, where a few bright voxels stand
    out of one value, the ends. Raises InputError when all values are one."""
    low, high = (float(value) for value in np.percentile(inside, percentiles))
    if high <= low:
        low, high = float(inside.min()), float(inside.max())
    if high <= low:
        raise InputError(f"{name} has no contrast: every value of its foreground is {low:g}.")
    return low, high


def to_grey(values: npt.NDArray[np.floating], low: float, high: float) -> Grey:
    """Values scaled so that ``low`` and ``high`` become 0 and 255, uint8 of the same shape."""
    grey: Grey = np.round(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return grey


def grey_slice(values: Volume, foreground: Foreground, window: tuple[float, float]) -> Grey:
    """A slice [h, w] of a data set as grey values, its background black; the window in double precision."""
    return to_grey(values.astype(np.float64), *window) * foreground


def pad_to_square(picture: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Centre a picture [h, w] on zeros [side, side]; the odd pixel goes below and to the right."""
    missing = [side - length for length in picture.shape]
    return np.pad(picture, [(length // 2, length - length // 2) for length in missing])


def require_one_spacing(paths: Sequence[Path], spacings: Sequence[tuple[float, float]]) -> None:
    """Raise InputError where pixels (rows, columns, mm) of several volumes differ in size."""
    sizes = np.array(spacings, dtype=np.float64).reshape(-1, 2)
    if not len(sizes) or (factors := sizes.max(axis=0) / sizes.min(axis=0)).max() <= 1 + SAME_SPACING:
        return
    column = int(factors.argmax())
    least, most = int(sizes[:, column].argmin()), int(sizes[:, column].argmax())
    raise InputError(
        f"the spacing of pixels differs: {sizes[least, column]:.3g} mm in {paths[least]}, "
        f"{sizes[most, column]:.3g} mm in {paths[most]}, so that the same organ would have two sizes; key spacing "
        f"resamples all slices, for example to {sizes[most, column]:.3g} mm."
    )


def resampled_size(shape: Sequence[int], sizes: Sequence[float], spacing: float | None) -> tuple[int, int]:
    """Height and width of a slice of pixels of ``sizes`` mm, in pixels of ``spacing`` mm."""
    if spacing is None:
        return shape[0], shape[1]
    height, width = (max(1, round(n * size / spacing)) for n, size in zip(shape, sizes, strict=True))
    return height, width


def resized_slice(picture: Grey, size: tuple[int, int]) -> Grey:
    """A slice [h, w] at another size (height, width), by bicubic interpolation."""
    if picture.shape == size:
        return picture
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size[::-1], Image.Resampling.BICUBIC))


def slice_indices(foreground: Foreground, step: int, minimum: float, area: float) -> list[int]:
    """Every ``step``-th of the slices [slice, h, w] whose foreground covers at least ``minimum`` of ``area`` pixels."""
    covered = foreground.sum(axis=(1, 2)) / area
    return [int(index) for index in np.flatnonzero(covered >= minimum)[::step]]


def save_slice(picture: Grey, side: int, path: Path) -> None:
    """Write a slice [h, w], padded to a square, as an 8-bit grey PNG."""
    Image.fromarray(np.ascontiguousarray(pad_to_square(picture, side))).save(path)
