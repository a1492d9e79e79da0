"""What a metric of anomaly maps may mean: the choices that tools and papers make differently.

A convention says which mask values are anomalous (``masks``), which normal pixels count (``pixels``), and over what a
metric is computed before it is averaged (``over``). Lesion pixels always count; where nothing was scored they are
missed at every threshold.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from dinodp.errors import InputError
from dinodp.metrics.counts import Floats
from dinodp.scans.measuring.image_scores import RULES
from dinodp.scans.measuring.masked import Size

POOLED, EACH_IMAGE, EACH_SCAN, LESIONS, HEALTHY = "all pixels", "each image", "each scan", "lesions", "healthy scans"
MASK_RULES = ("gt0", "eq255")


class Key(NamedTuple):
    """A metric under one convention; ``score``: the rule of an image's score, for metrics of images; ``group``: of the
    metadata, for shares of healthy scans."""

    metric: str
    masks: str
    pixels: str
    over: str
    score: str = ""
    group: str = ""


@dataclass(frozen=True)
class Choices:
    """How many resamples, by which rules images are scored, and which size wins where map and mask differ."""

    n_resamples: int = 1000
    image_scores: tuple[str, ...] = tuple(RULES)
    top_fraction: float = 0.01
    size: Size | None = None

    def __post_init__(self) -> None:
        if self.n_resamples < 1:
            raise InputError(f"--resamples is {self.n_resamples}; it must be at least 1.")
        if not 0 < self.top_fraction <= 1:
            raise InputError(f"--top-fraction is {self.top_fraction}; it must lie above 0 and at most at 1.")


class Found(NamedTuple):
    """A value, its replicates (none: it has no interval), and how many subjects with a lesion it rests on."""

    value: float
    replicates: Floats | None
    n_subjects: int


@dataclass
class Measured:
    """What was found by key, what is to be known of it in sentences, and the FROC curve by ``pixels``."""

    found: dict[Key, Found] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    froc: dict[str, dict[str, Floats]] = field(default_factory=dict)
