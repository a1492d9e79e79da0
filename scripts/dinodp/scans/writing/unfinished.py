"""What a prediction has done so far, kept beside its output until all of it is done, so that a killed run goes on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dinodp import __version__
from dinodp.errors import InputError
from dinodp.jobs.files import UNFINISHED, clear_left, read_json, remove, write_json
from dinodp.jobs.logs import logger
from dinodp.jobs.origin import sha256
from dinodp.scans.writing.prediction import DICOM, TAILS, PredictionOptions, Result
from dinodp.scans.writing.regions import Region
from dinodp.scans.writing.stack import EncodedStack
from dinodp.scans.writing.views import EncodedView

JOB = "job.json"
FOLDERS = ("", "maps", "masks", "overlays", TAILS, DICOM)


def job_of(model: Path, options: PredictionOptions) -> str:
    """A digest of what decides the output, but for the scans. Raises InputError for a model that cannot be read."""
    try:
        with model.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"There is no file {model}." if not model.exists() else f"{model} cannot be read.") from error
    return sha256(json.dumps([__version__, content, asdict(options)], sort_keys=True))


def unfinished_job(folder: Path) -> str | None:
    """The job whose output in ``folder`` is not complete; None where there is none."""
    try:
        return str(read_json(folder / UNFINISHED / JOB)["job"])
    except (InputError, KeyError):
        return None


def require_finished(folder: Path) -> None:
    """Raise InputError for a folder in which scans are missing."""
    if unfinished_job(folder) is None:
        return
    names = [str(name) for name in read_json(folder / UNFINISHED / JOB).get("scans", [])]
    there = {str(read_json(path).get("name")) for path in (folder / UNFINISHED).glob("*.json") if path.name != JOB}
    missing = [name for name in names if name not in there]
    raise InputError(
        f"{folder} is unfinished: {len(missing)} of {len(names)} scans are missing"
        + (f", for example {missing[0]}" if missing else ", and so are its tables")
        + "; the same `dinodp predict` goes on where it stopped."
    )


class Progress:
    """The results of a job so far, each under the digest of its scan, with the digests of the files that it wrote."""

    def __init__(self, folder: Path, job: str, names: Sequence[str]) -> None:
        self.folder, self.place, self.used = folder, folder / UNFINISHED, set[str]()
        self.places: dict[str, Path] = {}  # of results, by the names of scans
        for name in FOLDERS:
            clear_left(folder / name)
        if before := sum(path.name != JOB for path in self.place.glob("*.json")):
            logger.info("%d scans were scored before: those that are the same are not scored again.", before)
        write_json(self.place / JOB, {"job": job, "scans": list(names)})

    def done(self, name: str, path: Path) -> Result | None:
        """The result for a scan, if it was scored before and all that was written is as it was."""
        kept = self._kept(name, path)
        try:
            content = read_json(kept)
            files = content["files"]
            if any(_digest(self.folder / file) != digest for file, digest in files.items()):
                return None
            self.used.add(kept.name)
            return _result(content["result"], path)
        except (InputError, OSError, KeyError, TypeError, AttributeError):
            return None

    def keep(self, result: Result) -> None:
        """Note a result whose files are written."""
        kept = self._kept(result.name, result.path)
        files = {name: _digest(self.folder / name) for name in result.record["files"]}
        content = {**asdict(result), "path": ""}
        write_json(kept, {"name": result.name, "files": files, "result": content})
        self.used.add(kept.name)

    def finish(self) -> None:
        """All is done: forget it, and delete the files of scans that are no longer among those to be scored."""
        discard(self.folder, self.used)

    def stop(self) -> None:
        """Not all is done; where nothing is, there is nothing to go on with."""
        if not any(path.name != JOB for path in self.place.iterdir()):
            remove(self.place)

    def _kept(self, name: str, path: Path) -> Path:
        if name not in self.places:
            self.places[name] = self.place / f"{sha256(json.dumps([name, content_of(path)]))}.json"
        return self.places[name]


def discard(folder: Path, used: set[str] | None = None) -> None:
    """Delete what an unfinished job has noted, and the files of all its results but those ``used``."""
    place, kept, stale = folder / UNFINISHED, set[str](), set[str]()
    for path in place.glob("*.json"):
        try:
            files = set(read_json(path).get("files", {}))
        except InputError:
            continue
        (kept if used is not None and path.name in used else stale).update(files)
    inside = [folder / name for name in stale - kept if (folder / name).resolve().is_relative_to(folder.resolve())]
    for path in inside:
        path.unlink(missing_ok=True)
    remove(place)


def content_of(path: Path) -> str:
    """A digest of the bytes of a scan: of its file, or of the files of its series."""
    try:
        files = sorted(item for item in path.iterdir() if item.is_file()) if path.is_dir() else [path]
        return sha256("".join(f"{file.name}\0{_digest(file)}\n" for file in files).encode("utf-8", "surrogateescape"))
    except OSError:  # its reader tells so
        return ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _result(content: Mapping[str, Any], path: Path) -> Result:
    regions = [
        Region(**{**item, "centroid": item["centroid"] and tuple(item["centroid"]), "centre": tuple(item["centre"])})
        for item in content["regions"]
    ]
    views = [EncodedView(**item) for item in content["views"]]
    stack = content["stack"] and EncodedStack(**content["stack"])
    return Result(**{**content, "path": path, "regions": regions, "views": views, "stack": stack})
