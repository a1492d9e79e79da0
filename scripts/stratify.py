"""Metrics of one model by size and contrast of the lesion, level of the slice and metadata."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.datasets.manifest import read_manifest
from dinodp.evaluation.strata import stratify
from dinodp.jobs.logs import begin_job
from dinodp.options.protocol import Protocol

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
stratify(
    read_manifest(Path(snakemake.input.manifest)),
    Path(snakemake.input.cases),
    Path(snakemake.input.test),
    Path(snakemake.input.valid),
    snakemake.params.score,
    Protocol.of(snakemake.params.protocol),
    dict(snakemake.wildcards),
    Path(snakemake.output.strata),
    snakemake.params.grouping.get("bins", {}),
)
