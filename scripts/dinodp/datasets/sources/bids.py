"""A BIDS data set: healthy participants by participants.tsv, lesion masks from a data set of derivatives."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd

from dinodp.datasets.bids import BidsChoice, BidsName, column_of, find_bids
from dinodp.datasets.manifest import SPLITS
from dinodp.datasets.sources.volume_slices import LabelledVolume, VolumeOptions, cut_volumes
from dinodp.datasets.subjects import draw
from dinodp.errors import InputError
from dinodp.options.base import option


class BidsOptions(VolumeOptions):
    """Volumes of a BIDS data set, cut into slices; participants.tsv says who is healthy."""

    source: Literal["bids"] = "bids"
    suffix: str = option("T1w", "Of the files that are read, such as T1w or FLAIR.")
    session: str | None = option(None, "Only files of this session.")
    acquisition: str | None = option(None, "Only files of this acquisition.")
    entities: dict[str, str] = option({}, "Other entities that files must have, such as `{desc: preproc}`.")
    healthy_column: str = option("group", "Column of participants.tsv that says who is healthy.")
    healthy_values: tuple[str, ...] = option(("control",), "Its values of healthy participants.")
    split_column: str | None = option(
        None, "Column of participants.tsv with train, valid or test; absent: healthy participants are drawn."
    )
    valid_fraction: float = option(0.2, "Share of the healthy participants drawn for validation.", gt=0, lt=1)
    test_fraction: float = option(0.2, "Share of the healthy participants drawn for the test.", gt=0, lt=1)
    seed: int = option(0, "Of what is drawn at random.", ge=0)
    mask_root: str | None = option(
        None, "BIDS data set, such as a folder of `derivatives`, with lesion masks; absent: labels of volumes only."
    )
    mask_suffix: str = option("mask", "Of the masks, such as mask or dseg.")

    def prepare(self, folder: Path) -> pd.DataFrame:
        """Write slices and masks as PNG below ``folder/slices``.

        Healthy participants are normal; of others in the test, slices with a mask that is not empty are anomalous.
        Raises InputError for whatever is wrong with the data set.
        """
        root = Path(self.root)
        found = [(named(name), name, path) for name, path in find_bids(root, self.choice())]
        values = column_of(root, self.healthy_column)
        healthy = {subject for subject, value in values.items() if value in self.healthy_values}
        splits = self._splits(root, sorted({name.subject for name, _, _ in found}), healthy)
        masks = self._masks()
        volumes = [
            self._volume(splits[bids.subject], bids, name, path, bids.subject in healthy, masks)
            for bids, name, path in found
            if bids.subject in splits
        ]
        if not volumes:
            raise InputError(f"no participant of {root} is in a split.")
        return cut_volumes(volumes, self, folder)

    def choice(self) -> BidsChoice:
        """Which files are read."""
        given = {"session": self.session, "acquisition": self.acquisition, **self.entities}
        return BidsChoice.of([f"suffix={self.suffix}", *(f"{key}={value}" for key, value in given.items() if value)])

    def places(self) -> list[str]:
        """The data set, and that of its masks."""
        return [self.root, *([self.mask_root] if self.mask_root else [])]

    def _splits(self, root: Path, subjects: list[str], healthy: set[str]) -> dict[str, str]:
        """The split of each participant who is in one."""
        if self.split_column is not None:
            given = column_of(root, self.split_column)
            return {subject: given[subject] for subject in subjects if given.get(subject) in SPLITS}
        normal = [subject for subject in subjects if subject in healthy]
        if len(normal) < len(SPLITS):
            raise InputError(
                f"{len(normal)} participants of {root} with such files are healthy ({self.healthy_column} "
                f"{' or '.join(self.healthy_values)}); at least {len(SPLITS)} are needed for train, valid and test."
            )
        test = draw(normal, self.test_fraction, self.seed)
        left = [subject for subject in normal if subject not in test]
        valid = draw(left, self.valid_fraction * len(normal) / len(left), self.seed)
        return {
            subject: "valid" if subject in valid else "test" if subject in test or subject not in healthy else "train"
            for subject in subjects
        }

    def _masks(self) -> dict[str, Path]:
        """The masks by what tells their scan: participant, session and the like."""
        if self.mask_root is None:
            return {}
        found = find_bids(Path(self.mask_root), BidsChoice(self.mask_suffix))
        return {scan_key(named(name)): path for name, path in found}

    def _volume(
        self, split: str, bids: BidsName, name: str, path: Path, healthy: bool, masks: dict[str, Path]
    ) -> LabelledVolume:
        """Raises InputError for a patient without a mask, where there are masks."""
        mask = None if healthy else masks.get(scan_key(bids))
        if masks and not healthy and mask is None:
            raise InputError(
                f"{path.name} has no {self.mask_suffix} in {self.mask_root} (by participant, session and run)."
            )
        return LabelledVolume(split, path, name, bids.subject, mask, "normal" if healthy else "anomalous")


def named(name: str) -> BidsName:
    """The parts of a name that `find_bids` gave."""
    found = BidsName.of(name)
    assert found is not None
    return found


def scan_key(name: BidsName) -> str:
    """What a scan and its mask share."""
    return "_".join(f"{entity}-{name.entities[entity]}" for entity in ("sub", "ses", "run") if entity in name.entities)
