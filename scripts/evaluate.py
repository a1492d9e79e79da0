"""Metrics and curves of one model on the test split."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.datasets.manifest import read_manifest
from dinodp.evaluation.test_split import evaluate_scores, require_scores_of
from dinodp.jobs.logs import begin_job
from dinodp.options.protocol import Protocol

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
test, valid = Path(snakemake.input.test), Path(snakemake.input.valid)
require_scores_of(Path(snakemake.input.model), test, valid)
evaluate_scores(
    test_scores=test,
    valid_scores=valid,
    manifest=read_manifest(Path(snakemake.input.manifest)),
    labels={**snakemake.wildcards, **snakemake.params.labels},
    protocol=Protocol.of(snakemake.params.protocol),
    metrics_path=Path(snakemake.output.metrics),
    curves_path=Path(snakemake.output.curves),
)
