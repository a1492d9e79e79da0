"""What to run."""

from typing import Literal

from pydantic import field_validator

from dinodp.jobs.files import user_path
from dinodp.options.base import Options, option
from dinodp.options.choices import FromOne, FromZero
from dinodp.options.distillation import DistillationOptions

Names = tuple[str, ...]
MaskRule = Literal["gt0", "eq255"]
ThresholdMaps = Literal["patch", "pixel"]
Aupr = Literal["trapezoid", "average_precision"]
NAMES = "Names of the catalog."


class ProtocolOptions(Options):
    """A column of the report's comparison of protocols; what is absent is the run's."""

    model: str = option(..., "A model of the run.")
    threshold_maps: ThresholdMaps | None = option(None, "As in the run.")
    aupr: Aupr | None = option(None, "As in the run.")
    mask_rules: tuple[MaskRule] | None = option(None, "As in the run.")


class RunOptions(Options):
    """What is run, and how it is evaluated and reported."""

    title: str = option(..., "Heading of the summary.")
    note: str = option(..., "What the results say and what they do not.")
    datasets: Names = option(..., NAMES, min_length=1)
    embeddings: Names = option(..., NAMES, min_length=1)
    models: Names = option(..., NAMES, min_length=1)
    figure_models: Names = option((), "Models of the run that figures and cases show; absent: all.")
    alignment_models: Names = option(
        (), "Mixtures whose components are compared with anatomy (docs/method.md, alignment); none: no such analysis."
    )
    seeds: tuple[FromZero, ...] = option((0,), "One fit per seed.", min_length=1)
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = option(
        "auto",
        "Where torch computes: auto, on a GPU where there is one (cuda before xpu before mps); cuda, mps or xpu, on "
        "such a one or not at all (docs/cluster.md).",
    )
    cache: str = option(
        "none",
        "Where fits and memory banks read a split's embeddings from: `none`, the file; `memory`, read once; or a "
        "folder on a local disk to which the file is copied (`$TMPDIR`). For slow file systems; changes no result.",
        changes_result=False,
    )
    @field_validator("cache")
    @classmethod
    def _expand(cls, cache: str) -> str:
        return str(user_path(cache)) if cache.startswith("~") else cache

    processes: int = option(
        1,
        "Processes of one machine that share the fit of a mixture, each with a GPU where there are some "
        "(docs/cluster.md). Equal to one process up to rounding.",
        ge=1,
    )
    shards: int = option(
        1,
        "Jobs that share the embedding of a split, and the scoring by a memory bank (docs/cluster.md). Results do not "
        "depend on it.",
        ge=1,
        changes_result=False,
    )
    mask_rules: tuple[MaskRule, ...] = option(
        ("gt0", "eq255"), "Which mask values are anomalous; the first is used in tables.", min_length=1
    )
    smoothing_sigma: float = option(0.0, "Gaussian smoothing of anomaly maps (AnomalyDINO: 4).", unit="pixels", ge=0)
    bootstrap_resamples: int = option(1000, "Resamples of the test subjects for 95 % intervals; 0: none.", ge=0)
    baseline: str = option("memory_bank", "The model that the others are compared with in `differences.csv`.")
    lesions: bool = option(
        False,
        "Also the share of lesions found at 1, 2 and 4 false regions per image (FROC, docs/method.md); data sets with "
        "boxes have it in any case.",
    )
    threshold_maps: ThresholdMaps = option(
        "patch",
        "Where thresholds are calibrated: on the patches of the normal validation images (the paper), or on their maps "
        "at full resolution. Dice is computed at both; this one is used in tables, report and comparison.",
    )
    aupr: Aupr = option("trapezoid", "Which AUPR is compared with the published one; both are computed.")
    image_score_fraction: float = option(
        0.01,
        "The image score is the mean of this share of the highest patches; 0: the highest patch.",
        ge=0,
        le=1,
    )
    image_score_sigma: float = option(
        0.0, "Gaussian smoothing of the patch scores that the image score is made of.", unit="patches", ge=0
    )
    mask_size: tuple[FromOne, FromOne] | None = option(
        None,
        "Height and width to which masks are resized (nearest pixel) and maps are made; absent: each mask's own.",
        unit="pixels",
    )
    distillation: DistillationOptions = option(
        DistillationOptions(), "How students (`backbone: results/students/DATASET/EMBEDDING`) are trained."
    )
    protocols: dict[str, ProtocolOptions] = option(
        {}, "Columns of the report's comparison of protocols, by name: a `model` of the run, and how values are read."
    )
    published_as: str | None = option(
        None, "The name of `published_embedding` in resources/published/published.csv; absent: the same."
    )
    published_sources: tuple[Literal["schulthess2025", "schulthess2026"], ...] = option(
        ("schulthess2025", "schulthess2026"),
        "Papers whose values are compared; the first one in the file that has a value is taken; none: nothing is "
        "compared.",
    )
    published_embedding: str = option(
        "dinov2_vits14", "The embedding whose rows are compared with the published numbers."
    )
    tables: Names = option(("table1", "table2", "table3", "costs"), "Tables, by name.")
    figures: Names = option(
        ("anomaly_maps", "component_maps", "score_histograms", "roc_pr_curves", "training_history", "pca_components"),
        "Figures, by the name of their file in report/figures.",
    )
