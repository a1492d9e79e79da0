"""The backbone's weights beside a model, so that the model can be passed on to where there is no network."""

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinodp.backbones.directory import require_files, weight_files
from dinodp.errors import InputError
from dinodp.jobs.files import replaced_folder
from dinodp.scans.naming import weights_of

CONFIGURATION = ("config.json", "preprocessor_config.json", "model.safetensors.index.json")
ALLOWING = (  # licences, by their SPDX names, under which copies may be passed on
    "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0",
    "CC-BY-NC-SA-4.0",
)  # fmt: skip
KNOWN = {"facebook/dinov2-": "Apache-2.0"}  # by the beginning of a hub name
FILE = re.compile(r"(?!\.)[\w.-]{1,100}")
DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class IncludedWeights:
    """The ``licence`` of weights that lie beside a model, and the SHA-256 of each of their ``files``."""

    licence: str
    files: Mapping[str, str]

    def __post_init__(self) -> None:
        """Raises InputError for what was never included: the names may come from a file."""
        if self.licence not in ALLOWING:
            raise _not_allowed(self.licence)
        known = all(FILE.fullmatch(name) and DIGEST.fullmatch(digest) for name, digest in self.files.items())
        if not (self.files and known):
            raise InputError("The included weights must be files without a folder, each with its SHA-256.")

    def require(self, model: Path) -> Path:
        """The folder of the weights beside ``model``. Raises InputError unless it holds each file as it was."""
        folder = weights_of(model)
        for name, digest in self.files.items():
            if not (folder / name).is_file():
                raise InputError(
                    f"{model} was passed on with its weights, but {folder / name} is missing: keep the folder beside "
                    "it, or say with --backbone where the weights are."
                )
            if _digest(folder / name) != digest:
                raise InputError(f"{folder / name} is not as it was when {model} was fitted: it was changed.")
        if unlisted := sorted({path.name for path in weight_files(folder)} - set(self.files)):
            raise InputError(f"{folder} holds the weights {unlisted[0]}, which do not belong to {model}: remove them.")
        return folder

    @classmethod
    def from_json(cls, content: Mapping[str, Any] | None) -> "IncludedWeights | None":
        """From what a model file holds; None where it holds none."""
        return None if content is None else cls(content["licence"], dict(content["files"]))


def licence_of(backbone: str, stated: str | None) -> str:
    """The licence of a backbone's weights: as it is known, else as it is ``stated``.

    Raises InputError where it is neither, does not allow to pass copies on, or there are no weights.
    """
    if backbone == "classical":
        raise InputError("The classical descriptor has no weights that could be included.")
    licence = next((name for start, name in KNOWN.items() if backbone.startswith(start)), None) or stated
    if licence is None:
        raise InputError(
            f"The licence of {backbone} is not known here: state it with --licence, one of {', '.join(ALLOWING)}."
        )
    if licence not in ALLOWING:
        raise _not_allowed(licence)
    return licence


def include_weights(directory: Path, model: Path, licence: str) -> IncludedWeights:
    """Copy the weights in ``directory`` into the folder beside ``model``.

    Raises InputError for pickled weights, which can run code.
    """
    require_files(directory)
    weights = weight_files(directory)
    if any(path.suffix != ".safetensors" for path in weights):
        raise InputError(
            f"{directory} holds pickled weights (.bin), which are not passed on: convert them to safetensors."
        )
    files = [*weights, *(directory / name for name in CONFIGURATION if (directory / name).is_file())]
    with replaced_folder(weights_of(model)) as folder:
        for file in files:
            shutil.copyfile(file, folder / file.name)
        found = {file.name: _digest(folder / file.name) for file in files}
    return IncludedWeights(licence, found)


def _not_allowed(licence: str) -> InputError:
    return InputError(
        f"The licence {licence!r} is none of those known to allow that weights are passed on ({', '.join(ALLOWING)}): "
        "leave out --include-weights."
    )


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
