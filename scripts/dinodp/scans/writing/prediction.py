"""Score many scans one by one and write their maps, masks and overlays."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from dinodp.datasets.geometry import VolumeGeometry
from dinodp.errors import InputError, reason_of, require_finite, require_known
from dinodp.jobs.logs import keep_traceback, logger, progress
from dinodp.jobs.prefetch import prefetched, run_behind
from dinodp.options.protocol import FALSE_POSITIVE_RATES
from dinodp.scans.detecting.calibration import Calibration
from dinodp.scans.detecting.model_file import FittedDetector
from dinodp.scans.detecting.notes import notes_on
from dinodp.scans.detecting.scoring import ScoredScan
from dinodp.scans.reading.folder import read_scan
from dinodp.scans.reading.scan import Scan
from dinodp.scans.writing.derivatives import write_sidecars
from dinodp.scans.writing.dicom_objects import write_dicom
from dinodp.scans.writing.maps import (
    FULL_RANGE,
    IMAGE_FORMATS,
    Map,
    Mask,
    write_image,
    write_mask,
    write_picture,
    write_volume,
)
from dinodp.scans.writing.places import Places
from dinodp.scans.writing.regions import Region, find_regions
from dinodp.scans.writing.stack import EncodedStack, stack_of
from dinodp.scans.writing.views import EncodedView, Scale, View, views

Made = TypeVar("Made")
Found = tuple[ScoredScan, str]  # with what is to be known of the scan
N_VIEWS = 3
DICOM = "dicom"
UNREAD, UNWRITTEN = "it cannot be read", "the output cannot be written"


@dataclass(frozen=True)
class PredictionOptions:
    """What is written. ``threshold``: name of a calibrated one, or a score; ``calibrated``: maps of tail probabilities;
    ``dicom``: DICOM objects that refer to the series; ``derivatives``: as a data set of BIDS derivatives;
    ``viewers``: colour tables and scripts for viewers;
    ``subject_pattern`` names the subject within a scan's name, whose scans the gallery shows side by side.

    Raises InputError for unknown values.
    """

    threshold: str | float = "fpr01"
    slice_step: int = 1
    masks: bool = False
    overlays: bool = False
    image_format: str = "tiff"
    n_regions: int = 5
    force: bool = False
    calibrated: bool = False
    dicom: bool = False
    subject_pattern: str | None = None
    derivatives: bool = False
    viewers: bool = False

    def __post_init__(self) -> None:
        require_known("format of maps of images", self.image_format, IMAGE_FORMATS)
        if isinstance(self.threshold, str):
            require_known("threshold (or give a number)", self.threshold, FALSE_POSITIVE_RATES)
        else:
            require_finite("threshold", self.threshold)
        if self.slice_step < 1 or self.n_regions < 0:
            raise InputError(
                f"slice_step is {self.slice_step} and n_regions {self.n_regions}: at least 1 and 0 are needed."
            )


@dataclass(frozen=True)
class Result:
    """What became of one scan; ``message`` says why it failed; ``note`` what is to be known of one that did not;
    ``record`` is what evaluation needs."""

    name: str
    path: Path
    message: str = ""
    row: dict[str, Any] = field(default_factory=dict)
    slices: list[dict[str, Any]] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    views: list[EncodedView] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    stack: EncodedStack | None = None

    @property
    def failed(self) -> bool:
        return bool(self.message)


class Kept(Protocol):
    """Results of an earlier run that was stopped (`dinodp.scans.writing.unfinished.Progress`)."""

    def done(self, name: str, path: Path) -> Result | None:
        """The result for a scan, if there is one."""

    def keep(self, result: Result) -> None:
        """Note a result."""


def predict_scans(
    scans: Sequence[tuple[str, Path]], detector: FittedDetector, folder: Path, options: PredictionOptions, kept: Kept
) -> Iterator[Result]:
    """Score scans (name, path) one by one and write their maps, masks and overlays into ``folder``.

    While one is scored the next is read and the last written. A scan that fails is recorded with its sentence, leaves
    no file, and does not stop the others. One that an earlier run has scored is not scored again.
    """
    seen: dict[str, str] = {}

    def read(name: str, path: Path) -> Result | Scan:
        if earlier := kept.done(name, path):
            return earlier
        return _told(name, path, UNREAD, lambda: read_scan(name, path, detector.scorer.preparation.reading()), path)

    def score(name: str, path: Path, found: Result | Scan) -> Result | Found:
        if isinstance(found, Result):
            return found
        return _told(name, path, UNREAD, lambda: _scored(found, detector, options), path)

    def write(name: str, path: Path, found: Result | Found) -> Result:
        if isinstance(found, Result):
            return found
        result = _attempt(name, path, found, detector, folder, options)
        if not result.failed:
            kept.keep(result)
        return result

    unread = prefetched((name, path, read(name, path)) for name, path in scans)
    results = run_behind(((name, path, score(name, path, found)) for name, path, found in unread), write)
    for result in progress(results, "predict", len(scans), unit="scan"):
        if result.note:
            logger.warning("%s: %s.", result.path, result.note)
        same = seen.setdefault(result.record.get("voxels_sha256", result.name), result.name)
        if same != result.name:
            logger.warning("%s holds the same voxels as %s.", result.name, same)
        yield result


def _told(name: str, path: Path, failed: str, step: Callable[[], Made], place: Path) -> Made | Result:
    """What a step makes of a scan, or the result that says why it failed.

    ``failed``: what could not be done where the system refused something, which is at ``place`` if it names no file.
    """
    try:
        return step()
    except InputError as error:
        message = str(error)
    except OSError as error:
        message = f"{path}: {failed} ({reason_of(error, place)})."
    except Exception as error:  # one scan must not cost the others theirs
        message = f"{path} failed unexpectedly ({reason_of(error)}); the traceback is {keep_traceback(error)}."
    logger.warning("%s", message)
    return Result(name, path, message)


def _attempt(
    name: str, path: Path, found: Found, detector: FittedDetector, folder: Path, options: PredictionOptions
) -> Result:
    written: list[Path] = []
    try:
        result = _told(
            name, path, UNWRITTEN, lambda: _predict(name, path, found, detector, folder, options, written), folder
        )
    except KeyboardInterrupt:
        _remove(written)
        raise
    if result.failed:
        _remove(written)
    return result


def _remove(written: Sequence[Path]) -> None:
    for path in written:
        path.unlink(missing_ok=True)


def _scored(scan: Scan, detector: FittedDetector, options: PredictionOptions) -> Found:
    """A scan with its scores, and what is to be known of it."""
    scored = detector.scorer.score(scan, options.slice_step, force=options.force)
    return scored, notes_on(scored.prepared, detector)


def _predict(
    name: str, scan: Path, found: Found, detector: FittedDetector, folder: Path, options: PredictionOptions,
    written: list[Path],
) -> Result:  # fmt: skip
    """Write what was found of one scan; what is written goes to the list ``written``."""
    (scored, note), calibration = found, detector.calibration
    limit = threshold_value(detector, options.threshold)
    geometry = scored.scan.geometry
    above = scored.scored & (scored.anomaly_map > limit)
    scores, mask, inside = (_on_disk(values, scored) for values in (scored.anomaly_map, above, scored.scored))
    count, regions = find_regions(scores, mask, geometry, options.n_regions)
    places = Places(name, scan, geometry is not None, options.image_format, options.derivatives)
    written.append(_write_map(folder / places.map, scores, inside, geometry, calibration.map_range))
    if options.masks:
        write_mask(folder / places.mask, mask, geometry)
        written.append(folder / places.mask)
    tail = _write_tail(folder / places.tail, scored, calibration) if options.calibrated else None
    written.extend([] if tail is None else [tail])
    if options.derivatives:
        written.extend(write_sidecars(written, scan, limit))
    if options.dicom and scan.is_dir():
        written.extend(write_dicom(folder / DICOM, name, scan, scores, mask, limit))
    elif options.dicom:
        note = "; ".join(filter(None, (note, "it is no DICOM series, so no DICOM objects are written of it")))
    scale = Scale.of(calibration, limit)
    shown = views(scored, scale, N_VIEWS)
    if options.overlays:
        for view in shown:
            path = folder / "overlays" / f"{name}{'' if geometry is None else f'_{view.index:03d}'}.png"
            write_picture(path, view.blended(scale))
            written.append(path)
    stack = stack_of(scored, scale)
    row, slices = _row(scored, detector, above, count, shown), _slice_rows(scored)
    files = [file.relative_to(folder).as_posix() for file in written]
    record = {
        "name": name, "map": files[0], "files": files, "outside": scored.outside, "score": scored.score,
        "slices": slices, "voxels_sha256": scored.scan.digest,
        **({} if tail is None else {"tail": tail.relative_to(folder).as_posix()}),
    }  # fmt: skip
    return Result(name, scan, "", row, slices, regions, [view.encoded() for view in shown], record, note, stack)


def _write_map(
    path: Path, scores: Map, scored: Mask, geometry: VolumeGeometry | None, map_range: tuple[float, float]
) -> Path:
    if geometry is not None:
        write_volume(path, scores, geometry, "anomaly map, not a diagnosis")
        return path
    write_image(path, scores, scored, map_range)
    if path.suffix == ".png" and scores.max() > map_range[1]:
        logger.warning("%s is clipped at %d; --image-format tiff is not.", path, FULL_RANGE)
    return path


def _write_tail(path: Path, scored: ScoredScan, calibration: Calibration) -> Path:
    """Write how rare each score is among healthy voxels; 1 where nothing was scored."""
    geometry, values = scored.scan.geometry, scored.tail_map(calibration.tail)
    if geometry is None:
        write_image(path, values[0], scored.scored[0], calibration.map_range)
    else:
        write_volume(path, geometry.from_stack(values), geometry, "tail probability of healthy, no diagnosis")
    return path


def threshold_value(detector: FittedDetector, threshold: str | float) -> float:
    """A threshold as a score."""
    return detector.calibration.threshold(threshold) if isinstance(threshold, str) else threshold


def _on_disk(stack: Any, scored: ScoredScan) -> Any:
    geometry = scored.scan.geometry
    return stack[0] if geometry is None else geometry.from_stack(stack)


def _row(scored: ScoredScan, detector: FittedDetector, above: Any, count: int, shown: Sequence[View]) -> dict[str, Any]:
    healthy = np.asarray(detector.calibration.scan_scores)
    geometry = scored.scan.geometry
    return {
        "score": scored.score,
        "healthy_with_lower_score": int((healthy < scored.score).sum()),
        "healthy_held_out": len(healthy),
        "share_above": float(above.sum() / scored.scored.sum()),
        "ml_above": "" if geometry is None else round(float(above.sum() * geometry.voxel_ml), 6),
        "regions_above": count,
        "highest_slice": "" if geometry is None else max(shown, key=lambda view: view.score).index,
    }


def _slice_rows(scored: ScoredScan) -> list[dict[str, Any]]:
    geometry = scored.scan.geometry
    if geometry is None:
        return []
    return [
        {"slice": geometry.slice_on_disk(index), "score": float(score)}
        for index, score in zip(scored.chosen, scored.slice_scores, strict=True)
    ]
