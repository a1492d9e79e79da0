"""Which of the values that every run computes stand beside the published ones."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import pandas as pd

from dinodp.options.choices import Interpolation
from dinodp.options.run import RunOptions

AUPR = {"trapezoid": "pixel_aupr_trapezoid", "average_precision": "pixel_average_precision"}
AUPR_NAMES = {"trapezoid": "trapezoid under the curve", "average_precision": "average precision"}
FALSE_POSITIVE_RATES = {"fpr10": 0.10, "fpr05": 0.05, "fpr01": 0.01}  # at which thresholds are calibrated
FALSE_REGIONS = (1, 2, 4)  # per image or scan, at which lesions found are counted
THRESHOLD_MAPS = {"": "", "pixel_": " at pixel threshold"}  # start of the names of thresholds, and what headings say
DICE = {
    "patch": tuple(f"dice_{rate}" for rate in FALSE_POSITIVE_RATES),
    "pixel": tuple(f"dice_pixel_{rate}" for rate in FALSE_POSITIVE_RATES),
}

AUPR_OF = {"schulthess2025": "trapezoid", "schulthess2026": "average_precision"}  # the papers' AUPR
MASK_SIZES = {"schulthess2025": None, "schulthess2026": (448, 448)}  # to which the papers resize masks; None: their own


def of_run(key: str) -> Any:
    """What a run's configuration takes where nothing is said."""
    return RunOptions.model_fields[key].default


@dataclass(frozen=True)
class PublishedBackbone:
    """What embeds the images of a published run."""

    backbone: str
    square: bool
    interpolation: Interpolation = "bicubic"
    resolution: int = 448
    layers: tuple[int, ...] = (-1,)


PUBLISHED_BACKBONES = {  # by the name in published.csv
    "dinov2_vits14": PublishedBackbone("facebook/dinov2-small", square=False),
    "dinov3_vits16": PublishedBackbone(
        "facebook/dinov3-vits16-pretrain-lvd1689m", square=True, interpolation="bilinear"
    ),
}


@dataclass(frozen=True)
class Protocol:
    """How maps become values: masks, smoothing, thresholds, form of the AUPR; and whose published values are compared.

    Every value is computed under each of ``mask_rules``; tables, figures and cases use the first. ``mask_size``
    (height, width): to which masks are resized and at which maps are made; None: each mask's own.
    ``image_score_fraction``: the share of the patches, the highest, of which the image score is the mean, after a
    Gaussian of ``image_score_sigma`` patches.
    ``lesions``: whether the lesions of masks are counted one by one; those that are boxes always are.
    ``resamples``: of the test subjects; 0: no intervals.
    Published values belong to the catalog's embedding ``published_embedding``, which the papers' table (published.csv)
    calls ``published_as``.
    """

    mask_rules: tuple[str, ...] = ("gt0",)
    threshold_maps: str = of_run("threshold_maps")
    aupr: str = of_run("aupr")
    published_embedding: str = of_run("published_embedding")
    published_as: str = of_run("published_embedding")
    published_sources: tuple[str, ...] = of_run("published_sources")
    smoothing_sigma: float = of_run("smoothing_sigma")
    mask_size: tuple[int, ...] | None = of_run("mask_size")
    image_score_fraction: float = of_run("image_score_fraction")
    image_score_sigma: float = of_run("image_score_sigma")
    lesions: bool = of_run("lesions")
    resamples: int = of_run("bootstrap_resamples")

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> Self:
        """The protocol of a run's configuration; keys that it lacks keep the paper's values."""
        named = {**run, "resamples": run.get("bootstrap_resamples")}
        said: dict[str, Any] = {item.name: named[item.name] for item in fields(cls) if named.get(item.name) is not None}
        said.setdefault("published_as", said.get("published_embedding", cls.published_embedding))
        plain: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in said.items()}
        return cls(**plain)

    def under(self, mask_rule: str) -> Self:
        """The same protocol with one mask rule."""
        return replace(self, mask_rules=(mask_rule,))

    @property
    def mask_rule(self) -> str:
        """The rule of tables, figures and cases: the first."""
        return self.mask_rules[0]

    def deviations(self, metric: str, source: str) -> list[str]:
        """In what the value of a metric was made otherwise than the one that a paper (``source``) published."""
        found = [] if self.smoothing_sigma == 0 else [f"maps smoothed with sigma {self.smoothing_sigma:g}"]
        if self.mask_size != (size := MASK_SIZES.get(source)):
            there = "their own" if size is None else f"{size[0]}x{size[1]}"
            found.append(f"masks of another size (there: {there})")
        there = AUPR_OF.get(source, "trapezoid")
        if metric in AUPR.values() and metric != AUPR[there]:
            found.append(f"another area under the curve (there: {AUPR_NAMES[there]})")
        if metric in DICE["pixel"]:
            found.append("thresholds of full-resolution maps (there: of patches)")
        return found

    @property
    def aupr_metric(self) -> str:
        """The metric that is compared with a published AUPR."""
        return AUPR[self.aupr]

    @property
    def dice_metrics(self) -> tuple[str, ...]:
        """Dice at false positive rates of 10, 5 and 1 %."""
        return DICE[self.threshold_maps]

    @property
    def thresholds(self) -> tuple[str, ...]:
        """The thresholds behind `dice_metrics`, by name."""
        return tuple(name.replace("dice", "threshold") for name in self.dice_metrics)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the paper's tables 1 and 2."""
        return ("pixel_auroc", self.aupr_metric, *self.dice_metrics)


PAPER = Protocol()


def read_published(path: Path, protocol: Protocol) -> pd.DataFrame:
    """The papers' values under the names of this project: metrics of the protocol, family in place of ``method``."""
    frame = pd.read_csv(path)
    metrics = {"pixel_aupr": protocol.aupr_metric, **dict(zip(DICE["patch"], protocol.dice_metrics, strict=True))}
    families = {f"{family}_{protocol.published_as}": family for family in ("memory_bank", "dpmm")}
    known = frame["source"].isin(protocol.published_sources)
    return frame.assign(
        metric=frame["metric"].replace(metrics), method=frame["method"].replace(families)
    )[known].reset_index(drop=True)  # fmt: skip
