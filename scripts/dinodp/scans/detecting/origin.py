"""What a detector was fitted on, and how it came to be: counts, digests, and the thresholds before each update."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dinodp.errors import InputError, require_finite
from dinodp.options.protocol import FALSE_POSITIVE_RATES

DIGEST = re.compile("[0-9a-f]{64}")
MOST_UPDATES = 1000


@dataclass(frozen=True)
class Update:
    """New healthy ``scans`` that a model was continued with, and ``held_out_scans`` that its thresholds then came from.

    ``model_sha256`` and ``thresholds`` are those of the model before; of the voxels of the held-out scans so many
    exceed these with the model ``before`` and ``after``, by name of the threshold.
    """

    model_sha256: str
    scans: int
    held_out_scans: int
    thresholds: Mapping[str, float]
    before: Mapping[str, float]
    after: Mapping[str, float]

    def __post_init__(self) -> None:
        _require_counts(self.scans, self.held_out_scans)
        _require_digests([self.model_sha256])
        for values in (self.thresholds, self.before, self.after):
            if list(values) != list(FALSE_POSITIVE_RATES):
                raise InputError(f"An update must have the thresholds {', '.join(FALSE_POSITIVE_RATES)}.")
            require_finite("A number of an update", *values.values())


@dataclass(frozen=True)
class Origin:
    """How many ``scans`` were fitted (``slices`` of them) and held out, how many were far from all others, the digest
    of each one's voxels, and the updates. Raises InputError for what no fit gives."""

    scans: int
    held_out_scans: int
    slices: int
    outlying_scans: int
    scans_sha256: Sequence[str]
    updates: Sequence[Update] = ()

    def __post_init__(self) -> None:
        _require_counts(self.scans, self.held_out_scans, self.slices, self.outlying_scans)
        _require_digests(self.scans_sha256)
        if len(self.updates) > MOST_UPDATES:
            raise InputError(f"The model has {len(self.updates)} updates; at most {MOST_UPDATES} are read.")

    def updated(self, update: Update, slices: int, outlying: int, digests: Sequence[str]) -> "Origin":
        """After an update with scans of these digests, of which so many slices were learnt."""
        return replace(
            self,
            scans=self.scans + update.scans,
            held_out_scans=update.held_out_scans,
            slices=self.slices + slices,
            outlying_scans=self.outlying_scans + outlying,
            scans_sha256=[*self.scans_sha256, *digests],
            updates=[*self.updates, update],
        )

    @property
    def made_from(self) -> dict[str, str]:
        """The digest of the model before the last update, by its role."""
        return {"model": self.updates[-1].model_sha256} if self.updates else {}

    def to_json(self) -> dict[str, Any]:
        """As a mapping of plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Origin":
        """From what `to_json` gave."""
        names = list(FALSE_POSITIVE_RATES)
        rates = ("thresholds", "before", "after")
        updates = [
            Update(**{**item, **{key: {name: item[key][name] for name in names} for key in rates}})
            for item in content["updates"]
        ]
        return cls(**{**content, "updates": updates})


def _require_counts(*counts: int) -> None:
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise InputError(f"The counts of the origin, {', '.join(map(str, counts))}, must be integers from 0.")


def _require_digests(digests: Sequence[str]) -> None:
    if not all(isinstance(item, str) and DIGEST.fullmatch(item) for item in digests):
        raise InputError("The digests of the origin must be SHA-256 in hexadecimal letters.")
