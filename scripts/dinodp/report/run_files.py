"""Which files of a run the report is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dinodp.options import places


@dataclass(frozen=True)
class ModelFiles:
    """One model whose images are shown: its scores on the test and validation images, metrics and curves of a seed."""

    test: Path
    valid: Path
    metrics: Path
    curves: Path

    @property
    def place(self) -> tuple[str, str]:
        """Data set and embedding."""
        names = places.parse(places.METRICS, self.metrics)
        return names["dataset"], names["embedding"]

    @property
    def model(self) -> str:
        """Name in the catalog."""
        return places.parse(places.METRICS, self.metrics)["model"]


@dataclass(frozen=True)
class ReportFiles:
    """``manifests`` and ``checksums`` are by data set; files with a default may be absent."""

    metrics: Path
    costs: Path
    published: Path
    manifests: Mapping[str, Path]
    checksums: Mapping[str, Path]
    models: Sequence[ModelFiles]
    figures: Sequence[Path]
    intervals: Path | None = None
    differences: Path | None = None
    strata: Path | None = None
    alignment: Sequence[Path] = ()
    alignment_figures: Sequence[Path] = ()
    students: Sequence[Path] = ()
    student_costs: Sequence[Path] = ()
