"""Results as DICOM: a parametric map of the scores and a segmentation of what exceeds the threshold.

Both refer to the images of the source series, frame by frame, so that a viewer lays them above these. Needs highdicom
(extra `pacs`).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dinodp import __version__
from dinodp.datasets.dicom import series_headers
from dinodp.errors import InputError
from dinodp.jobs.files import replaced_file
from dinodp.scans.writing.maps import Map, Mask

REFERENCE = (  # what the objects are given of the source: its place, and which patient and study it belongs to
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "Rows",
    "Columns", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "PositionReferenceIndicator", "PatientID", "PatientName", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber",
)  # fmt: skip
EMPTY = ("PatientBirthDate", "PatientSex", "ReferringPhysicianName")  # must be there, may be empty
MAY_BE_EMPTY = (*EMPTY, "PatientID", "PatientName", "StudyDate", "StudyTime", "StudyID", "AccessionNumber")
NEEDED = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
SERIES_NUMBERS = {"map": 9001, "seg": 9002}
NO_DIAGNOSIS = "anomaly map, not a diagnosis"


def require_highdicom() -> None:
    """Raise InputError without highdicom."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise InputError("--dicom needs highdicom, which is not installed: pip install highdicom.") from error


def write_dicom(folder: Path, name: str, series: Path, scores: Map, mask: Mask, threshold: float) -> list[Path]:
    """Write ``name_map.dcm`` and ``name_seg.dcm`` of a series; ``scores`` and ``mask`` are [column, row, slice].

    Raises InputError for a series to which nothing can refer.
    """
    source = [_reference(header) for header in series_headers(series)]
    made = {"map": _map(source, _frames(scores)), "seg": _segmentation(source, _frames(mask), threshold)}
    paths = [folder / f"{name}_{kind}.dcm" for kind in made]
    for path, item in zip(paths, made.values(), strict=True):
        with replaced_file(path) as temporary:
            item.save_as(temporary, enforce_file_format=True)
    return paths


def _frames(values: Any) -> Any:
    """One image [row, column] per slice."""
    return np.ascontiguousarray(values.transpose(2, 1, 0))


def _reference(header: Any) -> Any:
    """Of a header what an object that refers to it needs. Raises InputError where it lacks that."""
    import pydicom

    if missing := [name for name in NEEDED if not header.get(name)]:
        raise InputError(f"{header.filename} lacks {missing[0]}: no DICOM object can refer to it.")
    found = pydicom.Dataset()
    for name in MAY_BE_EMPTY:
        setattr(found, name, "")
    for name in REFERENCE:
        if name in header:
            found[name] = header[name]
    found.file_meta = pydicom.dataset.FileMetaDataset()
    found.file_meta.TransferSyntaxUID = header.file_meta.TransferSyntaxUID
    return found


def _common(kind: str, first: Any, frames: npt.NDArray[Any]) -> dict[str, Any]:
    """What map and segmentation are built with alike; the same pixels of the same series have the same UIDs."""
    from pydicom.uid import generate_uid

    content = hashlib.sha256(frames.tobytes()).hexdigest()
    series, instance = (
        generate_uid(entropy_srcs=[str(first.SeriesInstanceUID), kind, content, level])
        for level in ("series", "instance")
    )
    return {
        "series_instance_uid": series,
        "series_number": SERIES_NUMBERS[kind],
        "sop_instance_uid": instance,
        "instance_number": 1,
        "manufacturer": "dinodp",
        "manufacturer_model_name": "dinodp",
        "software_versions": __version__,
        "device_serial_number": "none",
        "content_description": NO_DIAGNOSIS,
        "series_description": f"dinodp {kind}: research, no diagnosis",
    }


def _map(source: Sequence[Any], frames: Map) -> Any:
    from highdicom.content import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from pydicom.sr.coding import Code

    low, high = float(frames.min()), float(frames.max())
    mapping = RealWorldValueMapping(
        lut_label="SCORE",
        lut_explanation="Anomaly score, higher is less like healthy",
        unit=Code("1", "UCUM", "no units"),
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
    )
    found = ParametricMap(
        source,
        frames,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[VOILUTTransformation((low + high) / 2, max(high - low, 1e-6))],
        content_label="ANOMALY_SCORE",
        **_common("map", source[0], frames),
    )
    found.Laterality = ""  # not known; the standard has it present where the body part is not said
    return found


def _segmentation(source: Sequence[Any], frames: Mask, limit: float) -> Any:
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.coding import Code

    algorithm = AlgorithmIdentificationSequence(
        name="dinodp", family=Code("123110", "DCM", "Artificial Intelligence"), version=__version__
    )
    segment = SegmentDescription(
        segment_number=1,
        segment_label=f"score above {limit:.6g}",
        segmented_property_category=Code("309825002", "SCT", "Spatial and Relational Concept"),
        segmented_property_type=Code("111099", "DCM", "Selected region"),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
    )
    return Segmentation(
        source,
        frames.astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[segment],
        omit_empty_frames=bool(frames.any()),
        content_label="ABOVE_THRESHOLD",
        **_common("seg", source[0], frames),
    )
