"""BIDS derivatives: what describes the data set, its maps and its tables."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dinodp import __version__
from dinodp.datasets.bids import DESCRIPTION, UNKNOWN, BidsName
from dinodp.errors import InputError
from dinodp.jobs.files import read_json, write_json, write_text
from dinodp.scans.writing.places import TAIL, data_set_of, within_data_set

if TYPE_CHECKING:
    from dinodp.scans.writing.prediction import Result

BIDS_VERSION = "1.10.0"
IGNORED = ("*.csv", "gallery.html", "predictions.json", "overlays", "dicom", "viewers")  # not of the standard
SCORES = "Anomaly score, higher is more unlike the healthy scans; no diagnosis. Voxels outside were not scored."
TAILS_SAID = "Share of held-out healthy voxels that score at least as high; 1 where nothing was scored."
COLUMNS = {
    "filename": "The anomaly map.",
    "score": "Mean of the highest 1 % of the patch scores; no diagnosis.",
    "healthy_with_lower_score": "Held-out healthy scans with a lower score.",
    "healthy_held_out": "Held-out healthy scans.",
    "share_above": "Share of the scored voxels above the threshold.",
    "ml_above": "Volume above the threshold.",
    "regions_above": "Connected regions above the threshold.",
    "highest_slice": "Slice, as stored and from 0, that scores highest.",
}
UNITS = {"ml_above": "mL"}


def write_sidecars(maps: Sequence[Path], scan: Path, threshold: float) -> list[Path]:
    """Write what each map of a scan is into a JSON file beside it."""
    return [_write_sidecar(path, scan, threshold) for path in maps]


def _write_sidecar(path: Path, scan: Path, threshold: float) -> Path:
    sources = [f"bids:source:{within_data_set(scan).as_posix()}"]
    name = BidsName.of(path.name)
    content: dict[str, Any]
    if name is not None and name.suffix == "mask":
        said = f"1 where the anomaly score exceeds {threshold:.6g}; no diagnosis."
        content = {"Type": "Lesion", "Description": said, "SpatialReference": "orig", "Manual": False}
    else:
        is_tail = name is not None and name.entities["desc"] == TAIL
        content = {"Description": TAILS_SAID if is_tail else SCORES, "SkullStripped": _skull_stripped(scan)}
    sidecar = path.with_name(path.name.removesuffix(".nii.gz") + ".json")
    write_json(sidecar, {**content, "Sources": sources})
    return sidecar


def _skull_stripped(scan: Path) -> bool:
    """What the scan's own sidecar says, which derivatives must have; raw scans are not stripped."""
    try:
        return bool(read_json(scan.with_name(scan.name.partition(".")[0] + ".json")).get("SkullStripped", False))
    except InputError:
        return False


def write_derivatives(folder: Path, results: Sequence["Result"], model: str) -> list[str]:
    """Write the description of the data set, and a table of the scans of each participant; what was written."""
    scored = [item for item in results if not item.failed]
    root = Path(os.path.relpath(data_set_of(results[0].path), folder)).as_posix()
    write_json(folder / DESCRIPTION, _description(root, model))
    write_text(folder / ".bidsignore", "".join(f"{line}\n" for line in IGNORED))
    described = {key: {"Description": text, **_units(key)} for key, text in COLUMNS.items()}
    write_json(folder / "scans.json", described)
    return [DESCRIPTION, ".bidsignore", "scans.json", *_write_tables(folder, scored)]


def _units(column: str) -> dict[str, str]:
    return {"Units": UNITS[column]} if column in UNITS else {}


def _description(root: str, model: str) -> dict[str, Any]:
    made_by = {"Name": "dinodp", "Version": __version__, "Description": f"dinodp predict with the model {model}"}
    return {
        "Name": "Anomaly maps of dinodp",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [made_by],
        "SourceDatasets": [{"URL": root}],
        "DatasetLinks": {"source": root},
    }


def _write_tables(folder: Path, scored: Sequence["Result"]) -> list[str]:
    """``sub-X[_ses-Y]_scans.tsv`` in the folder of each participant and session."""
    rows: dict[Path, list[dict[str, Any]]] = defaultdict(list)
    for item in scored:
        name, path = BidsName.of(item.path.name), Path(item.record["map"])
        assert name is not None
        kept = [f"{key}-{name.entities[key]}" for key in ("sub", "ses") if key in name.entities]
        place = Path(*kept)
        row = {"filename": path.relative_to(place).as_posix(), **{key: item.row[key] for key in list(COLUMNS)[1:]}}
        rows[place / ("_".join([*kept, "scans"]) + ".tsv")].append(row)
    for table, found in rows.items():
        text = pd.DataFrame(found, columns=list(COLUMNS)).to_csv(sep="\t", index=False, na_rep=UNKNOWN)
        write_text(folder / table, text)
    return [table.as_posix() for table in rows]
