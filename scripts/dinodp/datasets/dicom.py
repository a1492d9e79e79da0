"""Read DICOM series: a folder of files, one slice each. Needs pydicom (extra `dicom`)."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dinodp.datasets.geometry import Affine, VolumeGeometry, require_affine, require_size
from dinodp.datasets.volumes import MAX_VOXELS, Volume
from dinodp.datasets.walking import is_passed_over
from dinodp.errors import InputError, one_line
from dinodp.jobs.logs import logger
from dinodp.options.base import shown

DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
DICOMDIR = "DICOMDIR"
MAGIC_AT, MAGIC = 128, b"DICM"
EVEN_GAPS = 0.02  # share of the median distance by which the gaps between slices may differ
SAME_MM, SAME_DIRECTION = 1e-3, 1e-3  # of places in mm and of direction cosines: rounding
PLACE = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
THICKNESS = ("SliceThickness", "SpacingBetweenSlices")  # of a single slice
NO_SCANS = ("SEG", "RTDOSE")  # modalities that have pixels, which are no picture of the body
VARYING = (  # what tells acquisitions of one series apart
    "AcquisitionNumber", "EchoTime", "TemporalPositionIdentifier", "DiffusionBValue", "TriggerTime", "ImageType",
    "AcquisitionTime", "InstanceNumber",
)  # fmt: skip


def is_dicom(file: Path) -> bool:
    """Whether a file is, by its name or its first bytes, DICOM; DICOMDIR is a table of contents.

    Raises InputError when it cannot be read.
    """
    if file.name == DICOMDIR:
        return False
    if file.suffix.lower() in DICOM_SUFFIXES:
        return True
    try:
        with file.open("rb") as stream:
            stream.seek(MAGIC_AT)
            return stream.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}).") from error


def is_slice(file: Path) -> bool:
    """Whether a file is DICOM and, by its header, an image; one that cannot be read as yet counts as one.

    Raises InputError when it cannot be opened.
    """
    if not is_dicom(file):
        return False
    try:
        return not _kind_without_image(_header(file))
    except InputError:  # damaged, or without pydicom: told when it is read
        return True


@dataclass(frozen=True)
class PlacedSeries:
    """Where the voxels of a series lie; ``affine`` [4, 4] takes [column, row, slice] to mm (right, front, top)."""

    shape: tuple[int, ...]
    affine: Affine

    def geometry(self, axis: int, frame: Affine | None = None) -> VolumeGeometry:
        """Sliced along a canonical ``axis`` (of a ``frame``)."""
        return VolumeGeometry(self.shape, self.affine, axis, frame=frame)


def read_slices(folder: Path) -> list[Any]:
    """The DICOM images of a series, headers and pixels, in order along the slice normal.

    Without places, in the order of the instance numbers, else of the names of the files. Files that are no DICOM image
    (structure sets, reports, a README) are passed over and named. Raises InputError without pydicom, for damaged,
    colour and multi-frame images, several series or acquisitions, slices that differ in size, and for none.
    """
    return [_decoded(header) for header in series_headers(folder)]


def read_series(folder: Path) -> Volume:
    """The slices [rows, columns, slices] of a series, float32, in order along the slice normal, with rescaling.

    MONOCHROME1 is inverted, so that bright is dense as elsewhere; padding is the lowest value. Raises InputError as
    `read_slices` does.
    """
    return _pixels(read_slices(folder))


def read_placed_series(folder: Path) -> tuple[Volume, PlacedSeries]:
    """Voxels [column, row, slice] of a series, and where they lie.

    Raises InputError as `read_slices` does, and where the place of the slices is not known or one is missing.
    """
    headers = series_headers(folder)
    affine = _affine(headers, folder)
    require_size(affine, (headers[0].Columns, headers[0].Rows, len(headers)), folder)
    voxels = _pixels([_decoded(header) for header in headers]).transpose(1, 0, 2)
    return voxels, PlacedSeries(voxels.shape, affine)


def series_headers(folder: Path) -> list[Any]:
    """The headers of a series in the order of its slices. Raises InputError as `read_slices` does."""
    headers = _headers(folder)
    _require_one_series(headers, folder)
    return _ordered(headers, folder)


def series_axes(folder: Path) -> Affine | None:
    """The directions of a series [4, 4] (columns, rows, slices; no lengths) by its first header that says them."""
    for file in _files(folder):
        if is_slice(file):
            try:
                across, down = _numbers(_header(file), "ImageOrientationPatient", 6).reshape(2, 3)
            except InputError:  # told when the series is read
                return None
            affine = np.eye(4)
            affine[:3, :3] = np.column_stack([across, down, np.cross(across, down)])
            affine[:2] *= -1  # DICOM counts leftwards and backwards
            return affine
    return None


def pixel_spacing(folder: Path) -> tuple[float, float] | None:
    """Distance between rows and between columns of a series, mm, by its first image; None where it does not say."""
    header = next((_header(file) for file in _files(folder) if is_slice(file)), None)
    if header is None or not _has(header, "PixelSpacing"):
        return None
    rows, columns = _numbers(header, "PixelSpacing", 2)
    if min(rows, columns) <= 0:
        raise InputError(f"{header.filename} has the PixelSpacing {rows:g} x {columns:g} mm, which is none.")
    return float(rows), float(columns)


def _files(folder: Path) -> list[Path]:
    """The files of a folder in the order in which people number them: 2 before 10."""
    files = [path for path in folder.iterdir() if path.is_file() and not is_passed_over(path.name)]
    return sorted(files, key=lambda path: ([int(part) for part in re.findall(r"\d+", path.stem)], path.name))


def _headers(folder: Path) -> list[Any]:
    """The headers of the images of a folder; what is none of them is named."""
    images, others = [], []
    for path in _files(folder):
        header = _header(path) if is_dicom(path) else None
        kind = "" if header is None else _kind_without_image(header)
        if header is None or kind:
            others.append(f"{path.name} ({kind})" if kind else path.name)
        else:
            images.append(header)
    if others:
        logger.info("%s: no DICOM images, and not read: %s.", folder, ", ".join(others))
    if not images:
        what = f": it holds no image, but {', '.join(others)}" if others else ""
        raise InputError(f"the series {folder} is empty{what}.")
    return images


def _header(path: Path) -> Any:
    """The header of a DICOM file. Raises InputError without pydicom, and for another file."""
    try:
        import pydicom
    except ImportError as error:
        raise InputError("reading DICOM needs pydicom, which is not installed: pip install pydicom.") from error
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        str(header.get("SOPClassUID")), str(header.get("Modality"))  # decoded here, so that damage is found here
    except Exception as error:  # pydicom raises many kinds for damaged files
        raise InputError(f"{path} is not a readable DICOM image ({one_line(error)}).") from error
    return header


def _kind_without_image(header: Any) -> str:
    """What a DICOM file is that is no image of the body, such as "RT Structure Set Storage"; empty for an image."""
    kind = getattr(_value(header, "SOPClassUID"), "name", "")
    if _value(header, "Modality") in NO_SCANS:
        return str(_value(header, "Modality"))
    return kind if not _has(header, "Rows") and kind and "Image Storage" not in kind else ""


def _require_one_series(headers: Sequence[Any], folder: Path) -> None:
    """Raise InputError for several series, sizes or kinds of images, before pixels are read."""
    if len({str(_value(item, "SeriesInstanceUID") or "") for item in headers}) > 1:
        raise InputError(f"{folder} holds files of several series; give each a folder of its own.")
    for item in headers:
        _require_grey_slice(item)
    sizes = {tuple(int(_numbers(item, name, 1)[0]) for name in ("Rows", "Columns")) for item in headers}
    if len(sizes) > 1:
        raise InputError(f"the slices of {folder} differ in size.")
    rows, columns = sizes.pop()
    if rows * columns * len(headers) > MAX_VOXELS:
        raise InputError(f"{folder} announces {rows * columns * len(headers)} voxels; at most {MAX_VOXELS} are read.")
    if len({str(item.PhotometricInterpretation) for item in headers}) > 1:
        raise InputError(f"{folder} holds slices of MONOCHROME1 and of MONOCHROME2: give each a folder of its own.")
    seen: dict[str, str] = {}
    for item in headers:
        identity, name = str(_value(item, "SOPInstanceUID") or ""), Path(item.filename).name
        if identity and seen.setdefault(identity, name) != name:
            raise InputError(f"{seen[identity]} and {name} in {folder} are one image (SOPInstanceUID): leave one out.")


def _require_grey_slice(item: Any) -> None:
    for name in ("Rows", "Columns", "PhotometricInterpretation"):
        if not _has(item, name):
            raise InputError(f"{item.filename} is not a readable DICOM image (it lacks {name}).")
    for name in ("Rows", "Columns"):
        if _numbers(item, name, 1)[0] < 1:
            raise InputError(f"{item.filename} has {_value(item, name)} {name}.")
    frames = int(_numbers(item, "NumberOfFrames", 1)[0]) if _has(item, "NumberOfFrames") else 1
    if frames > 1:
        raise InputError(
            f"{item.filename} holds {frames} frames in one file (multi-frame DICOM): convert it to NIfTI, for example "
            "with dcm2niix."
        )
    kind = str(item.PhotometricInterpretation)
    samples = _numbers(item, "SamplesPerPixel", 1)[0] if _has(item, "SamplesPerPixel") else 1
    if not kind.startswith("MONOCHROME") or samples > 1:
        raise InputError(f"{item.filename} is {kind[:60]}; only single grey slices can be used.")


def _ordered(headers: Sequence[Any], folder: Path) -> list[Any]:
    """Along the normal of the slices; without places by instance number, else as the files are named."""
    if all(_has(item, name) for item in headers for name in PLACE[:2]):
        return _along_normal(headers, folder)
    numbers = [_numbers(item, "InstanceNumber", 1)[0] if _has(item, "InstanceNumber") else np.nan for item in headers]
    how = "file name"
    if len(set(numbers)) == len(headers) and np.isfinite(numbers).all():
        how, headers = "instance number", [headers[index] for index in np.argsort(numbers)]
    if len(headers) > 1:
        logger.info("%s: where its slices lie is not known; they are in the order of the %s.", folder, how)
    return list(headers)


def _along_normal(headers: Sequence[Any], folder: Path) -> list[Any]:
    """Raises InputError for slices of several orientations or pixel sizes, and for several at one place."""
    directions = np.array([_numbers(item, "ImageOrientationPatient", 6) for item in headers])
    if np.abs(directions - directions[0]).max() > SAME_DIRECTION:
        raise InputError(f"the slices of {folder} have several orientations: give each a folder of its own.")
    if all(_has(item, "PixelSpacing") for item in headers):
        spacings = np.array([_numbers(item, "PixelSpacing", 2) for item in headers])
        if np.abs(spacings - spacings[0]).max() > SAME_MM:
            raise InputError(f"the slices of {folder} have several pixel sizes (PixelSpacing).")
    places = np.array([_position(item) for item in headers])
    order = np.argsort(places, kind="stable")
    repeated = np.flatnonzero(np.diff(places[order]) <= SAME_MM)
    if len(repeated):
        first, second = (headers[order[repeated[0] + step]] for step in (0, 1))
        most = max(Counter(np.round(places, 2)).values())
        raise InputError(
            f"{folder} holds up to {most} slices at one place, which differ in {_difference(first, second)}: several "
            "acquisitions in one series, slices are repeated; give each acquisition a folder of its own."
        )
    return [headers[index] for index in order]


def _difference(first: Any, second: Any) -> str:
    return next((name for name in VARYING if _value(first, name) != _value(second, name)), "their pixels")


def _decoded(header: Any) -> Any:
    """The whole file of a header, its pixels decoded."""
    import pydicom

    try:
        item = pydicom.dcmread(header.filename)
        if not _has(item, "NumberOfFrames") and "NumberOfFrames" in item:
            del item.NumberOfFrames  # empty: as if it were absent
        shape = item.pixel_array.shape  # so that damage is found here
    except InputError:
        raise
    except Exception as error:  # pydicom raises many kinds for damaged files
        raise InputError(f"{header.filename} is not a readable DICOM image ({one_line(error)}).") from error
    if len(shape) != 2:
        raise InputError(f"{header.filename} has pixels of {len(shape)} dimensions; only single slices can be used.")
    return item


def _position(item: Any) -> float:
    """Place of a slice along the normal of its plane, mm."""
    row, column = _numbers(item, "ImageOrientationPatient", 6).reshape(2, 3)
    return float(np.cross(row, column) @ _numbers(item, "ImagePositionPatient", 3))


def _value(item: Any, name: str) -> Any:
    """What an element holds, None where it is absent. Raises InputError where it is of no known kind."""
    try:
        return getattr(item, name, None)
    except Exception as error:  # decoded only now
        raise InputError(f"{item.filename} has a damaged {name} ({one_line(error)}).") from error


def _has(item: Any, name: str) -> bool:
    """Whether an element is there and not empty."""
    value = _value(item, name)
    return value is not None and not (hasattr(value, "__len__") and len(value) == 0)


def _numbers(item: Any, name: str, count: int) -> npt.NDArray[np.float64]:
    """The numbers [count] of an element. Raises InputError for others, and those that are not finite."""
    try:
        numbers = np.asarray(_value(item, name), dtype=np.float64).reshape(count)
    except (TypeError, ValueError):
        numbers = np.full(count, np.nan)
    if not np.isfinite(numbers).all():
        value = shown(_value(item, name))
        raise InputError(f"{item.filename} has the {name} {value}; {count} finite numbers are needed.")
    return numbers


def _pixels(slices: list[Any]) -> Volume:
    """Voxels [rows, columns, slices]; padding that is not the lowest value already takes that of the others."""
    voxels = np.stack([_rescaled(item) for item in slices], axis=2)
    if any(_has(item, "VOILUTSequence") for item in slices):
        logger.info("%s: its VOI look-up table is for the display, and not applied.", Path(slices[0].filename).parent)
    padding = np.stack([_padding(item) for item in slices], axis=2)
    if padding.any() and not padding.all():
        lowest = voxels[~padding].min()
        voxels[padding] = np.minimum(voxels[padding], lowest)
    return voxels


def _padding(item: Any) -> npt.NDArray[np.bool_]:
    """Which pixels [rows, columns] of a slice are none of the body, but fill its rectangle."""
    stored = item.pixel_array
    ends = [
        _as_stored(_numbers(item, name, 1)[0], stored.dtype)
        for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        if _has(item, name)
    ]
    if not _has(item, "PixelPaddingValue"):
        return np.zeros(stored.shape, dtype=bool)
    found: npt.NDArray[np.bool_] = (stored >= min(ends)) & (stored <= max(ends))
    return found


def _as_stored(value: float, kind: np.dtype[Any]) -> float:
    """A number that an element may have unsigned although the pixels are signed."""
    return value - 2 ** (8 * kind.itemsize) if kind.kind == "i" and value > np.iinfo(kind).max else value


def _rescaled(item: Any) -> Volume:
    """The pixels [rows, columns] of a slice, float32, by its own modality table, or slope and intercept; MONOCHROME1 is
    inverted."""
    values = _by_table(item) if _has(item, "ModalityLUTSequence") else _by_slope(item)
    return -values if item.PhotometricInterpretation == "MONOCHROME1" else values


def _by_table(item: Any) -> Volume:
    from pydicom.pixels.processing import apply_modality_lut

    try:
        values: Volume = np.asarray(apply_modality_lut(item.pixel_array, item)).astype(np.float32)
    except Exception as error:  # pydicom raises many kinds for damaged tables
        raise InputError(f"{item.filename} has a damaged ModalityLUTSequence ({one_line(error)}).") from error
    return values


def _by_slope(item: Any) -> Volume:
    slope, intercept = (
        float(_numbers(item, name, 1)[0]) if _has(item, name) else default
        for name, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    with np.errstate(over="ignore", invalid="ignore"):
        values: Volume = item.pixel_array.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    if not np.isfinite(values).all():
        raise InputError(f"{item.filename} has pixels beyond float32 after rescaling by {slope:g} and {intercept:g}.")
    return values


def _affine(slices: list[Any], folder: Path) -> npt.NDArray[np.float64]:
    """From voxel indices [column, row, slice] to mm in the axes of NIfTI [4, 4]."""
    first = slices[0]
    if missing := [name for name in PLACE if not all(_has(item, name) for item in slices)]:
        raise InputError(f"The series {folder} lacks {missing[0]}: where its slices lie is not known.")
    across, down = _numbers(first, "ImageOrientationPatient", 6).reshape(2, 3)
    row_gap, column_gap = _numbers(first, "PixelSpacing", 2)
    positions = np.array([_numbers(item, "ImagePositionPatient", 3) for item in slices])
    thickness = next((abs(_numbers(first, name, 1)[0]) for name in THICKNESS if _has(first, name)), 0.0)
    step = _step(positions, np.cross(across, down), float(thickness) or 1.0, folder)
    affine = np.eye(4)
    affine[:3] = np.column_stack([across * column_gap, down * row_gap, step, positions[0]])
    affine[:2] *= -1  # DICOM counts leftwards and backwards
    require_affine(affine, folder)
    return affine


def _step(
    positions: npt.NDArray[np.float64], normal: npt.NDArray[np.float64], thickness: float, folder: Path
) -> npt.NDArray[np.float64]:
    """Vector [3] in mm from one slice to the next; raises InputError for missing or repeated slices."""
    if len(positions) == 1:
        return normal * thickness
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    if usual <= 0 or np.abs(gaps - usual).max() > EVEN_GAPS * usual + 0.01:
        raise InputError(
            f"The slices of {folder} lie {gaps.min():.2f} to {gaps.max():.2f} mm apart: slices are missing or repeated."
        )
    step: npt.NDArray[np.float64] = (positions[-1] - positions[0]) / (len(positions) - 1)
    return step
