"""All metrics of the run as one tidy table."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.evaluation.collecting import collect_metrics
from dinodp.jobs.logs import begin_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
metrics, curves = ([Path(path) for path in paths] for paths in (snakemake.input.metrics, snakemake.input.curves))
collect_metrics(metrics, curves, Path(snakemake.output.table))
