"""What a source of data sets is: the options of a catalog entry, which prepare a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from PIL import Image
from pydantic import field_validator, model_validator

from dinodp.datasets.boxes import Box, BoxFile
from dinodp.datasets.manifest import image_size
from dinodp.datasets.subjects import compile_pattern
from dinodp.datasets.walking import IMAGE_SUFFIXES
from dinodp.errors import InputError
from dinodp.images import read_window
from dinodp.jobs.files import replaced_folder, user_path
from dinodp.jobs.logs import logger, progress
from dinodp.options.base import Options, option

if TYPE_CHECKING:
    import pandas as pd

OTHER_STAGES = ("archive", "expect", "accept", "metadata", "metadata_bins")  # keys that make no manifest
Counts = dict[Literal["train", "valid", "test"], dict[Literal["normal", "anomalous"], int]]


class ArchivePart(Options):
    """A folder in an archive."""

    name: str = option(..., "Name of an archive of the catalog.")
    member: str = option(..., "The folder of the data set in it.")


class Expected(Options):
    """What is published of a data set."""

    counts: Counts | None = option(None, "Images per split and label.")
    size: tuple[int, int] | None = option(None, "Height and width of the images.", unit="pixels")
    mask_values: tuple[int, ...] | None = option(None, "Grey values that occur in masks.")


class DatasetOptions(Options):
    """Keys of every data set.

    A subclass with a default ``source`` is a source of that name.
    """

    READS: ClassVar[tuple[str, ...]] = ()  # suffixes of the files that it reads; none: any

    source: str = option(..., "Which reader makes the manifest.")
    archive: ArchivePart | None = option(None, "Where to get it when there is nothing at its `root`.")
    expect: Expected | None = option(None, "What is published of it, to compare with.")
    accept: tuple[str, ...] = option((), "Deviations (docs/data.md) that do not stop the run.")
    metadata: str | None = option(
        None,
        "CSV table with a column `image` or `subject`, or participants.tsv of a BIDS data set; each other column gives "
        "strata and a bias table.",
    )
    metadata_bins: dict[str, tuple[float, ...]] = option(
        {}, "Where the numbers of a column of `metadata` are cut; absent: thirds of more than six numbers."
    )

    @field_validator("metadata_bins")
    @classmethod
    def _cuts_rise(cls, bins: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        for name, cuts in bins.items():
            if not cuts or list(cuts) != sorted(set(cuts)):
                raise ValueError(f"the cuts of {name} must be rising numbers, not {list(cuts)}")
        return bins

    @field_validator(
        "root", "metadata", "boxes", "btcv", "lits", "released_copy", "patients", "mask_root", check_fields=False
    )
    @classmethod
    def _expand(cls, path: str | None) -> str | None:
        return str(user_path(path)) if path and path.startswith("~") else path

    @classmethod
    def is_complete(cls) -> bool:
        """Whether it is a source, not what several of them share."""
        return not cls.model_fields["source"].is_required()

    @classmethod
    def whose(cls) -> str:
        """The source."""
        return f" for the source {cls.model_fields['source'].default!r}"

    def reading(self) -> dict[str, object]:
        """The keys, as plain values, that a manifest depends on: not those of other stages."""
        return {key: value for key, value in self.decisive().items() if key not in OTHER_STAGES}

    def grouping(self) -> dict[str, object]:
        """The keys of `metadata`, as plain values; empty without."""
        return {} if self.metadata is None else {"metadata": self.metadata, "bins": dict(self.metadata_bins)}

    def places(self) -> list[str]:
        """Files and folders of the user that the manifest is made from: a change of them makes it anew."""
        return []

    def prepare(self, folder: Path) -> pd.DataFrame:
        """The manifest; images that the source itself makes are written below ``folder``."""
        raise NotImplementedError


class RootedOptions(DatasetOptions):
    """Data sets that lie in one folder."""

    root: str = option(..., "The folder of the data set.")

    def grouping(self) -> dict[str, object]:
        """The keys of `metadata`, as plain values; empty without."""
        return {} if self.metadata is None else {"metadata": self.metadata, "bins": dict(self.metadata_bins)}

    def places(self) -> list[str]:
        """The folder."""
        return [self.root]


class SliceOptions(RootedOptions):
    """Volumes that are cut into slices."""

    slice_step: int = option(1, "Every n-th of the slices with enough foreground.", ge=1)
    min_foreground: float = option(0.1, "Least share of a padded slice that is foreground.", ge=0, le=1)
    window_percentiles: tuple[float, float] = option(
        (0.5, 99.5), "Percentiles of each volume's foreground that become 0 and 255.", unit="%"
    )
    spacing: float | None = option(
        None,
        "Side of the pixels of slices, to which they are resampled; absent: as stored, which must be one size for all "
        "volumes.",
        unit="mm",
        gt=0,
    )

    @field_validator("window_percentiles")
    @classmethod
    def _rise(cls, percentiles: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise ValueError(f"it must be two rising numbers from 0 to 100, not {list(percentiles)}")
        return percentiles


class SubjectOptions(RootedOptions):
    """Images whose names tell the subject."""

    READS: ClassVar[tuple[str, ...]] = IMAGE_SUFFIXES

    masks: bool = option(True, "False: image-level labels only; pixel metrics are then absent.")
    boxes: str | None = option(
        None,
        "CSV table or COCO file of boxes around lesions, in the place of masks: lesions found, but no metric of pixels "
        "(docs/data.md).",
    )
    depth: int | None = option(
        None, "Bits that grey values use where more are stored (12 in 16); absent: all.", unit="bits", ge=1, le=32
    )
    window: tuple[float, float] | None = option(
        None, "Stored values that become 0 and 255, instead of depth; absent: the whole range."
    )

    @field_validator("window")
    @classmethod
    def _rises(cls, window: tuple[float, float] | None) -> tuple[float, float] | None:
        if window is not None and window[0] >= window[1]:
            raise ValueError(f"it must be two rising numbers, not {list(window)}")
        return window

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.depth is not None and self.window is not None:
            raise ValueError("give depth or window, not both")
        return self

    @property
    def reads_masks(self) -> bool:
        """Whether lesions are masks."""
        return self.masks and self.boxes is None

    def places(self) -> list[str]:
        """The folder and the file of boxes."""
        return [*super().places(), *([] if self.boxes is None else [self.boxes])]

    def boxes_of(self, images: Sequence[tuple[str, Path]], root: Path) -> list[list[Box]]:
        """The boxes of each image (its label and path below ``root``); none without a file.

        Raises InputError as `BoxFile.read` does, for an anomalous image without a box, a normal one with one, a size
        that is not stated so, and a name that two images have.
        """
        if self.boxes is None:
            return [[] for _ in images]
        file = BoxFile.read(Path(self.boxes))
        owners: dict[str, Path] = {}
        for label, image in images:
            name = file.name_for(image.relative_to(root))
            if bool(file.boxes.get(name)) != (label == "anomalous"):
                raise InputError(
                    f"the {label} image {image} has {'no' if label == 'anomalous' else 'a'} box in {self.boxes}."
                )
            if name and owners.setdefault(name, image) != image:
                raise InputError(
                    f"{self.boxes} names {name}, which {owners[name]} and {image} are both called: put their folders "
                    "before the name, as in test/spot/0.png."
                )
            if name:
                file.require_size(name, image_size(image), "file")
        if unused := sorted(set(file.boxes) - set(owners)):
            logger.warning("%s names %d images that are not there, such as %s.", self.boxes, len(unused), unused[0])
        return [file.boxes.get(file.name_for(image.relative_to(root)), []) for _, image in images]

    def scaled(self, images: Sequence[Path], folder: Path) -> list[Path]:
        """The images, or, with `depth` or `window`, 8-bit PNG files of them that are written below ``folder/images``.

        Raises InputError for an image that cannot be read.
        """
        window = self.window if self.depth is None else (0.0, 2.0**self.depth - 1)
        if window is None:
            return list(images)
        names = [f"{number:06d}_{image.stem}.png" for number, image in enumerate(images)]
        with replaced_folder(folder / "images") as target:
            for name, image in zip(names, progress(images, "Window"), strict=True):
                Image.fromarray(read_window(image, window)).save(target / name)
        return [folder / "images" / name for name in names]

    @field_validator("subject_pattern", check_fields=False)
    @classmethod
    def _names_the_subject(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            compile_pattern(pattern)
        return pattern


class SeededOptions(DatasetOptions):
    """Data sets of which something is drawn."""

    seed: int = option(0, "Of what is drawn at random.", ge=0)
