"""Where the files of one scan go, below the folder of a prediction."""

from dataclasses import dataclass
from pathlib import Path

from dinodp.datasets.bids import BidsName

TAILS = "tails"
ANOMALY, TAIL = "anomaly", "tail"  # the entity desc of BIDS derivatives


@dataclass(frozen=True)
class Places:
    """Of a scan ``name``, read from ``source``; ``derivatives``: as BIDS has it."""

    name: str
    source: Path
    is_volume: bool
    image_format: str
    derivatives: bool

    @property
    def map(self) -> Path:
        """The scores."""
        end = ".nii.gz" if self.is_volume else f".{self.image_format}"
        return self._derived(ANOMALY) if self.derivatives else Path("maps", f"{self.name}{end}")

    @property
    def mask(self) -> Path:
        """What exceeds the threshold."""
        end = ".nii.gz" if self.is_volume else ".png"
        return self._derived(ANOMALY, "mask") if self.derivatives else Path("masks", f"{self.name}{end}")

    @property
    def tail(self) -> Path:
        """Tail probabilities."""
        end = ".nii.gz" if self.is_volume else ".tiff"
        return self._derived(TAIL) if self.derivatives else Path(TAILS, f"{self.name}{end}")

    def _derived(self, description: str, suffix: str | None = None) -> Path:
        bids = BidsName.of(self.source.name)
        assert bids is not None, "only files with BIDS names are chosen"
        return within_data_set(self.source).with_name(f"{bids.described(description, suffix)}.nii.gz")


def data_set_of(source: Path) -> Path:
    """The root of the BIDS data set that a file lies in."""
    return next(folder.parent for folder in reversed(source.parents) if folder.name.startswith("sub-"))


def within_data_set(source: Path) -> Path:
    """The path of a file below the root of its BIDS data set."""
    return source.relative_to(data_set_of(source))
