"""Are the files of a run whole, and do they fit together? Each is read in full, from the manifest to the tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dinodp import store
from dinodp.datasets.manifest import manifest_digest, read_manifest, require_unchanged_images
from dinodp.embeddings import EmbeddingReader
from dinodp.errors import InputError
from dinodp.jobs.asked import names_in
from dinodp.jobs.closure import code_digest
from dinodp.jobs.files import ORIGIN_SUFFIX
from dinodp.jobs.origin import origin_of, read_result, require_made_from, table_origin
from dinodp.options import places

IMAGES_PER_READ = 64
ENDS = (".h5", ".csv", ".json", ".md", ".tex")
SCORED = {split: places.fill(places.SCORES, split=split) for split in ("test", "valid")}
EMBEDDED = {split: places.fill(places.TOKENS, split=split) for split in ("train", "valid", "test")}
MANIFEST = {"manifest": places.MANIFEST}
INPUTS: dict[str, Mapping[str, str]] = {  # of a file at a place: the place of what plays each role among its inputs
    places.CASES: MANIFEST,
    places.CHECKSUMS: MANIFEST,
    places.fill(places.VERIFICATION, extension="json"): MANIFEST,
    places.TOKENS: MANIFEST,
    places.TOKENS_SHARD: MANIFEST,
    places.MODEL: {**MANIFEST, "train": EMBEDDED["train"], "valid": EMBEDDED["valid"]},
    places.SCORES: {**MANIFEST, "model": places.MODEL, "tokens": places.TOKENS},
    places.METRICS: {**MANIFEST, **SCORED},
    places.CURVES: {**MANIFEST, **SCORED},
    places.STRATA: {**MANIFEST, **SCORED, "cases": places.CASES},
    places.fill(places.ALIGNMENT, extension="csv"): {**MANIFEST, "tokens": EMBEDDED["test"]},
    places.TABLE: {"metrics.csv": places.METRICS_TABLE, "costs.csv": places.COSTS_TABLE},
}


@dataclass
class Verified:
    """A file: its digest, that of its code, its configuration and inputs, what it was made for, and what is wrong."""

    path: Path
    digest: str = ""
    code: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    made_from: Mapping[str, str] = field(default_factory=dict)
    made_for: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    def lines(self) -> list[str]:
        """In words, a line for each thing."""
        if self.problem:
            return [f"{self.path}: WRONG"]
        made_from = ", ".join(f"{role} {digest[:12]}" for role, digest in sorted(self.made_from.items()))
        config, made_for = (
            ", ".join(f"{name} {value}" for name, value in sorted(said.items()))
            for said in (self.config, self.made_for)
        )
        parts = {"code": self.code, "made from": made_from, "made for": made_for, "configuration": config}
        return [f"{self.path}: {self.digest[:12]}", *(f"  {name}: {text}" for name, text in parts.items() if text)]


def verify(path: Path) -> list[Verified]:
    """Verify a file by itself, or all files of a folder of results and how they fit together.

    Raises InputError where there is nothing to verify.
    """
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"There is no file or folder {path}.")
        return [_verify_file(path)]
    root = path / "results" if (path / "results").is_dir() else path
    found = {_place(file, root): _verify_file(file) for file in _results(root)}
    if not found:
        raise InputError(f"The folder {path} holds no result: give the folder `results` of a run.")
    for place, file in found.items():
        if not file.problem:
            file.problem = _misplaced(place, file) or _misfit(place, file, found)
    return list(found.values())


def _results(root: Path) -> list[Path]:
    """The files that say what they were made from."""
    files = (file for file in root.rglob("*") if file.suffix in ENDS and file.is_file())
    return sorted(file for file in files if _is_result(_place(file, root), file))


def _place(file: Path, root: Path) -> str:
    return (Path("results") / file.relative_to(root)).as_posix()


def _is_result(place: str, file: Path) -> bool:
    if file.name.startswith("part.") or file.name.endswith(ORIGIN_SUFFIX):
        return False
    if file.suffix == ".h5" or file.name.endswith(places.COST):
        return True
    of_run = file.suffix == ".csv" and place.count("/") == 1
    return of_run or any(names_in(pattern, place) is not None for pattern in (*INPUTS, places.MANIFEST))


def _verify_file(path: Path) -> Verified:
    """A file by itself: is it as it was written?"""
    readers: dict[str, Callable[[Path], Verified]] = {".json": _json, ".h5": _hdf5}
    try:
        if path.suffix not in ENDS:
            raise InputError(f"{path} ends in {path.suffix!r}: results end in {', '.join(ENDS)}.")
        return readers.get(path.suffix, _text)(path)
    except InputError as error:
        return Verified(path, problem=str(error))


def _hdf5(path: Path) -> Verified:
    with store.reading(path) as file:
        found = Verified(
            path,
            store.digest_of(path),
            str(file.attrs["library_digest"]),
            store.config_of(file),
            store.inputs_of(file),
            store.made_for_of(file),
        )
        kind = str(file.attrs["format"])
    if kind == store.LARGE:
        reader = EmbeddingReader(path, normalise=False, grid=None)
        for first in range(0, reader.n_images, IMAGES_PER_READ):
            reader.read(range(first, min(first + IMAGES_PER_READ, reader.n_images)))
    return found


def _text(path: Path) -> Verified:
    origin = table_origin(path)
    digest = origin.content_sha256
    if path.name == Path(places.MANIFEST).name:
        manifest = read_manifest(path)
        require_unchanged_images(manifest)
        digest = manifest_digest(manifest)
    return Verified(path, digest, origin.library_digest, made_from=origin.made_from, made_for=origin.made_for)


def _json(path: Path) -> Verified:
    if path.name.endswith(ORIGIN_SUFFIX):
        return _text(path.with_name(path.name.removesuffix(ORIGIN_SUFFIX)))
    content = read_result(path)
    origin = origin_of(content)
    config = content.get("options", {})
    return Verified(path, origin.content_sha256, origin.library_digest, config, origin.made_from, origin.made_for)


def _misplaced(place: str, file: Verified) -> str:
    """A sentence about a file that lies under the name of another one; empty where it lies where it was made for."""
    names = next(filter(None, (names_in(pattern, place) for pattern in INPUTS)), {})
    wrong = [kind for kind, name in names.items() if file.made_for.get(kind, name).partition(" ")[0] != name]
    said = " and ".join(f"the {kind} {file.made_for[kind].partition(' ')[0]}" for kind in wrong)
    return f"{file.path} was made for {said}: it lies in another place than it was written to." if wrong else ""


def _misfit(place: str, file: Verified, found: Mapping[str, Verified]) -> str:
    """The first sentence about an input that is not the one that is there; empty where all fit."""
    for role, source in _inputs(place, file.made_from):
        if source in found and found[source].digest:
            try:
                require_made_from(
                    file.path, file.made_from, role, found[source].digest, f"{found[source].path} as it is now"
                )
            except InputError as error:
                return str(error)
    return ""


def _inputs(place: str, made_from: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each role, and the place of the file that plays it."""
    for pattern, roles in INPUTS.items():
        names = names_in(pattern, place)
        if names is not None:
            yield from ((role, places.fill(source, **names)) for role, source in roles.items())
    yield from ((role, f"results/{role}") for role in made_from if "/" in role)


def summary(files: Sequence[Verified]) -> str:
    """How many files are whole, and by which code they were made."""
    wrong = sum(bool(file.problem) for file in files)
    kinds = {code_digest(module) for module in {*store.FORMATS.values()}}
    here = all(file.code in kinds for file in files if file.path.suffix == ".h5" and not file.problem)
    made = "this version's code" if here else "another version's code"
    return f"{len(files)} files, {wrong} of them wrong; HDF5 files were made by {made}."
