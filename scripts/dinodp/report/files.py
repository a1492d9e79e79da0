"""Which files of a run the report is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelFiles:
    """One model whose images are shown: its scores on the test and validation images, metrics and curves of a seed."""

    dataset: str
    embedding: str
    model: str
    test: Path
    valid: Path
    metrics: Path
    curves: Path


@dataclass(frozen=True)
class ReportFiles:
    """``manifests`` and ``checksums`` are by data set; files with a default may be absent."""

    metrics: Path
    costs: Path
    published: Path
    manifests: Mapping[str, Path]
    checksums: Mapping[str, Path]
    models: Sequence[ModelFiles]
    figures: Sequence[Path]  # results/figures/{dataset}/{embedding}/{figure}.png
    intervals: Path | None = None
    differences: Path | None = None
    strata: Path | None = None
    alignment: Sequence[Path] = ()
    alignment_figures: Sequence[Path] = ()  # results/alignment/{dataset}/{embedding}.png
