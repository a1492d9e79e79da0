"""All metrics of the run as one tidy table."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.evaluation.collecting import collect_metrics
from dinodp.jobs.logs import begin_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
collect_metrics([Path(path) for path in snakemake.input.metrics], Path(snakemake.output.table))
