"""What can be chosen when a detector is fitted."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from dinodp.backbones import EmbeddingOptions
from dinodp.errors import InputError, require_finite
from dinodp.families.base import ModelOptions
from dinodp.scans.detecting.method import DEFAULT_METHOD, own_model
from dinodp.scans.reading.folder import ReadingOptions
from dinodp.scans.reading.scan import Background

DEFAULT_BACKBONE = "facebook/dinov2-small"
PINNED_REVISIONS = {DEFAULT_BACKBONE: "ed25f3a31f01632728cabb09d1542f84ab7b0056"}
LEAST = {"slice_step": 1, "resolution": 1, "seed": 0}
MOST = {"resolution": 8192, "seed": 2**63 - 1}


@dataclass(frozen=True)
class Settings:
    """Settings of a fit; see `AnomalyDetector` for their meaning. Raises InputError for values that are not allowed."""

    backbone: str = DEFAULT_BACKBONE
    revision: str | None = None
    layers: tuple[int, ...] = (-1,)
    resolution: int = EmbeddingOptions.model_fields["resolution"].default
    method: str | Mapping[str, Any] = DEFAULT_METHOD
    score: str | None = None
    held_out: float = 0.2
    subject_pattern: str | None = None
    slice_step: int = 4
    min_foreground: float = 0.05
    axis: str = "axial"
    index: int | None = None
    background: Background = "auto"
    window: tuple[float, float] | None = None
    false_positive_rate: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        _ = self.model
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at most {most}.")
        for name in ("held_out", "false_positive_rate"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1.")
        if not 0 <= self.min_foreground < 1:
            raise InputError(f"min_foreground is {self.min_foreground}; it must lie between 0 and 1.")
        if isinstance(self.background, float | int):
            require_finite("background", self.background)
        if self.window is not None:
            require_finite("window", *self.window)
        if self.window is not None and not self.window[0] < self.window[1]:
            raise InputError(f"The window {self.window[0]:g} {self.window[1]:g} must be a lower and a higher value.")

    @cached_property
    def model(self) -> ModelOptions:
        """The options of the model, with the one score that is used. Raises InputError for what is not allowed."""
        return own_model(self.method, self.score)

    @property
    def score_name(self) -> str:
        """The score that is used."""
        return self.model.scores[0]

    @property
    def pinned_revision(self) -> str | None:
        """The chosen revision, or the one that this version pins."""
        return self.revision or PINNED_REVISIONS.get(self.backbone)

    def reading(self) -> ReadingOptions:
        """How scans are read."""
        return ReadingOptions(self.axis, self.index, self.background)

    def to_json(self) -> dict[str, Any]:
        """As a mapping of plain values; the model with all its options, whatever the defaults of later versions."""
        return {**asdict(self), "method": self.model.plain()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Settings":
        """From what `to_json` gave."""
        window = content["window"]
        tuples = {"layers": tuple(content["layers"]), "window": None if window is None else (window[0], window[1])}
        settings = cls(**{**content, **tuples})
        settings.reading()  # checks the rest
        return settings
