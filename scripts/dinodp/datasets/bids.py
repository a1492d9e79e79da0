"""BIDS data sets, read by their plain convention: names made of entities, and participants.tsv.

pybids would index a whole data set into a database, with five more packages, to answer what a name says by itself.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from dinodp.datasets.walking import LINK_DEAD, VOLUME_SUFFIXES, has_suffix, stem_of, walk
from dinodp.errors import InputError, visible
from dinodp.jobs.logs import logger
from dinodp.jobs.origin import parse_table

DESCRIPTION, PARTICIPANTS, PARTICIPANT = "dataset_description.json", "participants.tsv", "participant_id"
UNKNOWN = "n/a"
SUBJECT_PATTERN = r"(?P<subject>sub-[A-Za-z0-9+]+)"
SHORT = {
    "subject": "sub", "session": "ses", "acquisition": "acq", "reconstruction": "rec", "resolution": "res",
    "description": "desc",
}  # fmt: skip
ENTITY = re.compile(r"([A-Za-z]+)-([A-Za-z0-9+]+)")
SUFFIX = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True)
class BidsName:
    """Entities of a name, in its order, such as ``{"sub": "01", "ses": "1"}``, and its suffix, such as ``T1w``."""

    entities: Mapping[str, str]
    suffix: str

    @classmethod
    def of(cls, name: str) -> "BidsName | None":
        """Of the name of a file; None where it does not follow the convention."""
        *parts, suffix = name.partition(".")[0].split("_")
        found = [ENTITY.fullmatch(part) for part in parts]
        pairs = [(match[1], match[2]) for match in found if match is not None]
        if len(pairs) < len(parts) or not pairs or pairs[0][0] != "sub" or not SUFFIX.fullmatch(suffix):
            return None
        return cls(dict(pairs), suffix)

    @property
    def subject(self) -> str:
        """The participant, as in participants.tsv."""
        return f"sub-{self.entities['sub']}"

    def described(self, description: str, suffix: str | None = None) -> str:
        """The name, without an ending, of what is derived from a file: another ``desc``, and suffix if it is given."""
        kept = {key: value for key, value in self.entities.items() if key != "desc"} | {"desc": description}
        return "_".join([*(f"{key}-{value}" for key, value in kept.items()), suffix or self.suffix])


@dataclass(frozen=True)
class BidsChoice:
    """Files with a ``suffix`` and these ``entities``, by their short keys; "" means without the entity."""

    suffix: str
    entities: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, texts: Sequence[str]) -> "BidsChoice":
        """From texts such as ``suffix=T1w`` and ``session=1``. Raises InputError for others, and without a suffix."""
        pairs = dict(_pair(text) for text in texts)
        if not (suffix := pairs.pop("suffix", "")):
            raise InputError("--bids needs suffix=NAME, such as suffix=T1w: a model is for one kind of scan.")
        return cls(suffix, pairs)

    def holds(self, path: Path) -> bool:
        """Whether a file is one of them."""
        name = BidsName.of(path.name)
        return (
            name is not None
            and name.suffix == self.suffix
            and all(name.entities.get(key, "") == value for key, value in self.entities.items())
        )

    def in_words(self) -> str:
        """As the user gave it."""
        return " ".join([f"suffix={self.suffix}", *(f"{key}={value}" for key, value in self.entities.items())])


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise InputError(f"--bids: {text!r} is no filter of the form KEY=VALUE, such as suffix=T1w or session=1.")
    short = SHORT.get(key, key)
    return short, value.removeprefix(f"{short}-")


@dataclass(frozen=True)
class Participants:
    """Those with one of the ``values`` in a ``column`` of participants.tsv."""

    column: str
    values: Sequence[str]

    @classmethod
    def of(cls, text: str) -> "Participants":
        """From a text such as ``group=control,healthy``. Raises InputError for others."""
        column, sign, values = text.partition("=")
        if not sign or not column or not values:
            raise InputError(f"--participants: {text!r} is not of the form COLUMN=VALUE, such as group=control.")
        return cls(column, values.split(","))

    def among(self, root: Path) -> set[str]:
        """The participants of a data set. Raises InputError as `column_of`, and where there is none."""
        column = column_of(root, self.column)
        found = {subject for subject, value in column.items() if value in self.values}
        if not found:
            there = ", ".join(sorted(set(column.values()) - {""})[:8]) or "nothing"
            raise InputError(
                f"No participant of {root} has {self.column} {' or '.join(self.values)}; the column holds {there}."
            )
        return found


@dataclass(frozen=True)
class BidsInput:
    """What of BIDS data sets is read: files, and participants (None: all)."""

    choice: BidsChoice
    participants: Participants | None = None

    def find(self, root: Path) -> list[tuple[str, Path]]:
        """As `find_bids`."""
        return find_bids(root, self.choice, self.participants)


def participants_of(root: Path) -> Path:
    """The participants.tsv of a data set, or, of derivatives that have none, of the one that they lie in.

    Raises InputError where there is none.
    """
    for folder in (root, *([root.absolute().parent.parent] if root.absolute().parent.name == "derivatives" else [])):
        if (folder / PARTICIPANTS).is_file():
            return folder / PARTICIPANTS
    raise InputError(f"There is no {PARTICIPANTS} in the BIDS data set {root}.")


def column_of(root: Path, column: str) -> dict[str, str]:
    """A column of participants.tsv by participant ("" where unknown). Raises InputError where there is none."""
    path = participants_of(root)
    table = read_participants(path)
    if column not in table:
        raise InputError(f"{path} has no column {column!r}; there are {', '.join(table.columns)}.")
    return dict(zip(table[PARTICIPANT], table[column], strict=True))


def read_participants(path: Path) -> pd.DataFrame:
    """participants.tsv with texts as values ("": unknown). Raises InputError without participants."""
    table = parse_table(path, path.read_bytes(), dtype=str, keep_default_na=False, sep="\t").replace(UNKNOWN, "")
    if PARTICIPANT not in table:
        raise InputError(f"{path} has no column {PARTICIPANT}.")
    return table


def find_bids(root: Path, choice: BidsChoice, participants: Participants | None = None) -> list[tuple[str, Path]]:
    """Names, without ending, and paths of the NIfTI files that are chosen, by name.

    Only ``sub-*`` below the root counts: derivatives are data sets of their own. Raises InputError where the root is no
    BIDS data set, or nothing is chosen.
    """
    require_bids(root)
    wanted = None if participants is None else participants.among(root)
    folders = sorted(path for path in root.glob("sub-*") if path.is_dir())
    found = [walk(folder) for folder in folders if wanted is None or folder.name in wanted]
    _say_dead((path for item in found for path in item.left[LINK_DEAD]), root, choice)
    volumes = [path for item in found for path in item.files if has_suffix(path, VOLUME_SUFFIXES)]
    chosen = [path for path in volumes if choice.holds(path)]
    if not chosen:
        kinds = sorted({name.suffix for path in volumes if (name := BidsName.of(path.name)) is not None})
        raise InputError(
            f"The BIDS data set {root} holds no NIfTI file with {choice.in_words()} of {len(found)} participants; "
            f"suffixes there: {', '.join(kinds[:12]) or 'none'}."
        )
    return [(stem_of(path.name), path) for path in chosen]


def _say_dead(links: Iterable[Path], root: Path, choice: BidsChoice) -> None:
    dead = [path for path in links if choice.holds(path)]
    if dead:
        logger.warning(
            "%s: %d of the chosen files are links without a target (such as %s): fetch their content first.",
            root, len(dead), visible(dead[0].name),
        )  # fmt: skip


def require_bids(root: Path) -> None:
    """Raise InputError unless a folder is the root of a BIDS data set."""
    if not (root / DESCRIPTION).is_file():
        raise InputError(f"{root} is not the root of a BIDS data set: it holds no {DESCRIPTION}.")
