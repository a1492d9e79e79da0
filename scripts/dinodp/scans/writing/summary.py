"""Tables of many scans, the record that evaluation needs, and the gallery."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from dinodp import __version__
from dinodp.errors import visible
from dinodp.jobs.files import RECORD, read_json, write_json, write_text
from dinodp.scans.detecting.model_file import FittedDetector
from dinodp.scans.writing.gallery import NOTE, write_gallery
from dinodp.scans.writing.prediction import PredictionOptions, Result
from dinodp.scans.writing.regions import Region

GALLERY = "gallery.html"
FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
TABLES = ("scans.csv", "slices.csv", "regions.csv")
SCAN_COLUMNS = (
    "scan", "file", "status", "score", "healthy_with_lower_score", "healthy_held_out", "share_above", "ml_above",
    "regions_above", "highest_slice", "message",
)  # fmt: skip
REGION_COLUMNS = (
    "scan", "region", "size", "volume_ml", "x_mm", "y_mm", "z_mm", "i", "j", "k", "mean_score", "max_score"
)  # fmt: skip


def remove_earlier(folder: Path) -> None:
    """Delete what an earlier prediction wrote into ``folder``, and nothing else: the files that its record lists."""
    try:
        listed = [Path(folder, name) for scan in read_json(folder / RECORD)["scans"] for name in scan["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    inside = [path for path in listed if path.resolve().is_relative_to(folder.resolve())]
    for path in (*inside, *(folder / name for name in (*TABLES, GALLERY, RECORD))):
        if path.is_file():
            path.unlink()


def write_summary(
    folder: Path, results: Sequence[Result], detector: FittedDetector, options: PredictionOptions, model: str
) -> None:
    """Write scans.csv, slices.csv (of volumes), regions.csv, predictions.json and gallery.html into ``folder``.

    ``model`` names the model's file.
    """
    _write_tables(results, folder)
    write_json(folder / RECORD, _record(results, detector, options, model))
    write_gallery(folder / GALLERY, results, detector, options, model)


def cell(text: str) -> str:
    """A text for a table of CSV: visible, and with an apostrophe before what a spreadsheet would take for a formula."""
    shown = visible(text)
    return f"'{shown}" if shown.startswith(FORMULA_STARTS) else shown


def _write_tables(results: Sequence[Result], folder: Path) -> None:
    scans = [
        {"scan": cell(item.name), "file": cell(str(item.path)), "status": "failed" if item.failed else "scored",
         **item.row, "message": cell(item.message or item.note)}
        for item in results
    ]  # fmt: skip
    slices = [{"scan": cell(item.name), **row} for item in results for row in item.slices]
    regions = [
        {"scan": cell(item.name), "region": number, **_region_row(region)}
        for item in results
        for number, region in enumerate(item.regions, start=1)
    ]
    tables = {
        "scans": (scans, [*SCAN_COLUMNS]),
        "slices": (slices, ["scan", "slice", "score"]),
        "regions": (regions, [*REGION_COLUMNS]),
    }
    for name, (rows, columns) in tables.items():
        if name != "slices" or rows:
            write_text(folder / f"{name}.csv", pd.DataFrame(rows, columns=columns).to_csv(index=False))


def _region_row(region: Region) -> dict[str, Any]:
    row = asdict(region)
    row.update(zip(("x_mm", "y_mm", "z_mm"), row.pop("centroid") or ("", "", ""), strict=True))
    row.update(zip(("i", "j", "k"), row.pop("centre"), strict=False))
    return row


def _record(
    results: Sequence[Result], detector: FittedDetector, options: PredictionOptions, model: str
) -> dict[str, Any]:
    """What `dinodp evaluate` needs, and what made the predictions."""
    settings, calibration = detector.scorer.settings, detector.calibration
    return {
        "note": NOTE,
        "dinodp": __version__,
        "model": model,
        "backbone": detector.scorer.embedder.backbone.provenance(),
        "score": settings.score_name,
        "axis": settings.axis,
        "frame": detector.scorer.preparation.healthy.frame,
        "thresholds": dict(calibration.thresholds),
        "threshold": options.threshold,
        "map_range": list(calibration.map_range),
        "smallest_tail": calibration.tail.smallest,
        "scans": [item.record for item in results if not item.failed],
        "failed": {item.name: item.message for item in results if item.failed},
    }
