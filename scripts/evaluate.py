"""Metrics and curves of one model on the test split."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.datasets.manifest import read_manifest
from dinodp.evaluation.test_split import evaluate_scores
from dinodp.jobs.logs import begin_job
from dinodp.options.protocol import Protocol

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
evaluate_scores(
    model=Path(snakemake.input.model),
    test_scores=Path(snakemake.input.test),
    valid_scores=Path(snakemake.input.valid),
    manifest=read_manifest(Path(snakemake.input.manifest)),
    labels={**snakemake.wildcards, **snakemake.params.labels},
    protocol=Protocol.of(snakemake.params.protocol),
    metrics_path=Path(snakemake.output.metrics),
    curves_path=Path(snakemake.output.curves),
)
