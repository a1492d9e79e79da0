"""What a result was made from, and proof that it is whole.

Text results: a JSON result holds its origin itself, a CSV table has it beside it (``X.csv.origin.json``), so that
everybody can read the table. HDF5 results: `dinodp.store`. Digests are SHA-256 in hexadecimal digits.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from dinodp.errors import InputError, one_line
from dinodp.jobs.asked import made_for, require_made_for
from dinodp.jobs.closure import code_digest
from dinodp.jobs.files import ORIGIN_SUFFIX, read_json, write_json, write_text
from dinodp.jobs.logs import reading_of

AGAIN = "delete it and run again"
ORIGIN = "origin"


@dataclass(frozen=True)
class Origin:
    """Digest of a result's own content, of the code that made it, and of each of its inputs by role.

    ``made_for``: `dinodp.jobs.asked`.
    """

    content_sha256: str
    library_digest: str
    made_from: Mapping[str, str]
    made_for: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, content: Any, path: Path) -> "Origin":
        """Of its JSON form. Raises InputError, which names the ``path``, for anything else."""
        if not _is_origin(content):
            raise InputError(f"{path} does not say what it was made from: {AGAIN}.")
        return cls(**content)

    @classmethod
    def of(cls, path: Path, content_sha256: str, made_by: str, made_from: Mapping[str, str]) -> "Origin":
        """Of what is written to ``path`` by the module ``made_by``."""
        return cls(content_sha256, code_digest(made_by), dict(made_from), made_for(path))


def _is_origin(content: Any) -> bool:
    if not isinstance(content, dict) or set(content) != {item.name for item in fields(Origin)}:
        return False
    said = (content["made_from"], content["made_for"])
    return all(isinstance(part, dict) and all(isinstance(text, str) for text in part.values()) for part in said)


def sha256(content: bytes | str) -> str:
    """Digest of bytes, or of a text in UTF-8, in which names of files that are not keep their bytes."""
    plain = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    return hashlib.sha256(plain).hexdigest()


def origin_path(table: Path) -> Path:
    """Where the origin of a CSV table lies."""
    return table.with_name(table.name + ORIGIN_SUFFIX)


def write_table(path: Path, text: str, made_by: str, made_from: Mapping[str, str]) -> None:
    """Write a table as text (CSV, Markdown, LaTeX) and its origin; ``made_by``: the module that made it."""
    write_text(path, text)
    write_json(origin_path(path), asdict(Origin.of(path, sha256(text), made_by, made_from)))


def table_origin(path: Path) -> Origin:
    """The origin of a table, after a check that the table is whole and the one that was written.

    Raises InputError where the table or its origin is missing or changed, or made for another configuration.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    place = origin_path(path)
    if not place.is_file():
        raise InputError(f"There is no {place.name} beside {path}, which says what it was made from: {AGAIN}.")
    origin = Origin.read(read_json(place), place)
    if sha256(_bytes(path)) != origin.content_sha256:
        raise InputError(f"{path} is not as it was written: it was changed, cut or replaced; {AGAIN}.")
    require_made_for(path, origin.made_for)
    return origin


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """A CSV table of the pipeline, checked as `table_origin` does; ``options`` are those of ``pandas.read_csv``."""
    table_origin(path)
    return parse_table(path, _bytes(path), **options)


def read_text(path: Path) -> str:
    """A text of the pipeline with its origin beside it, checked as `table_origin` does."""
    table_origin(path)
    return _bytes(path).decode("utf-8")


def parse_table(path: Path, content: bytes, **options: Any) -> pd.DataFrame:
    """A CSV table from its bytes. Raises InputError, which names the ``path``, for what is none."""
    with reading_of(path):
        try:
            frame: pd.DataFrame = pd.read_csv(BytesIO(content), encoding_errors="surrogateescape", **options)
        except (ValueError, OverflowError) as error:  # pandas' own errors
            raise InputError(f"{path} is not a readable CSV table ({one_line(error)}).") from error
        return frame


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error


def write_result(path: Path, content: Mapping[str, Any], made_by: str, made_from: Mapping[str, str]) -> None:
    """Write a JSON result with its origin inside."""
    plain = json.loads(json.dumps(content))  # as it will be read
    origin = Origin.of(path, _content_digest(plain), made_by, made_from)
    write_json(path, {**content, ORIGIN: asdict(origin)})


def read_result(path: Path) -> dict[str, Any]:
    """A JSON result with its origin. Raises InputError where it is not as written, or made for something else."""
    content = read_json(path)
    origin = Origin.read(content.get(ORIGIN), path)
    if _content_digest(content) != origin.content_sha256:
        raise InputError(f"{path} is not as it was written: it was changed or damaged; {AGAIN}.")
    require_made_for(path, origin.made_for)
    return content


def origin_of(content: Mapping[str, Any]) -> Origin:
    """The origin of a result that `read_result` gave."""
    return Origin(**content[ORIGIN])


def _content_digest(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps({key: value for key, value in content.items() if key != ORIGIN}, sort_keys=True))


def require_made_from(path: Path, made_from: Mapping[str, str], role: str, digest: str, what: str) -> None:
    """Raise InputError unless ``path`` says that what plays ``role`` among its inputs has this ``digest``.

    ``what``: the input, as the sentence names it.
    """
    if role not in made_from:
        raise InputError(f"{path} does not say from which {role} it was made: {AGAIN}.")
    if made_from[role] != digest:
        raise InputError(
            f"{path} was not made from {what}: it is of another run, or older than what that holds now; {AGAIN}."
        )


def require_unchanged(path: Path | str, digest: str) -> None:
    """Raise InputError where a file that the manifest names is not the one whose ``digest`` it holds, or is gone."""
    file = Path(path)
    try:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}), but the manifest names it.") from error
    if found != digest:
        raise InputError(
            f"{file} was changed after the manifest was made: restore it, or run again with "
            "--forcerun prepare_dataset."
        )


def name_of(path: Path) -> str:
    """What one of many inputs of a kind is called among the inputs: its place below the folder of results."""
    parts = path.parts
    return "/".join(parts[len(parts) - parts[::-1].index("results") :] if "results" in parts else parts[-1:])
