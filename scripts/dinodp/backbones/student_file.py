"""The folder of a student: what it is and was made from (JSON), and its weights (safetensors). Free of torch."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dinodp.errors import InputError
from dinodp.jobs.files import read_json

DESCRIPTION, WEIGHTS = "student.json", "student.safetensors"
FORMAT = 1
KEYS = {"format", "teacher", "data", "options", "history", "network", "resolution", "square", "mean", "std",
        "weights_sha256"}  # fmt: skip
DIGITS = 16  # of the digest of each training image


def read_description(folder: Path) -> dict[str, Any]:
    """What a student is. Raises InputError for a folder without one, and for one of another version."""
    if not (folder / DESCRIPTION).is_file():
        raise InputError(f"There is no student in {folder}: it has no {DESCRIPTION}.")
    content = read_json(folder / DESCRIPTION)
    if content.get("format") != FORMAT or not content.keys() >= KEYS:
        raise InputError(f"{folder / DESCRIPTION} is of another version, or damaged: distil the student again.")
    return content


def digest_of(file: Path) -> str:
    """SHA-256 of a file. Raises InputError where it is missing."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): distil the student again.") from error


def images_seen(description: Mapping[str, Any], images: Iterable[str]) -> int:
    """How many of these images (by SHA-256) a student was trained on."""
    known = set(description["data"]["images"])
    return sum(digest[:DIGITS] in known for digest in images)
