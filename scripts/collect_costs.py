"""Time, memory and size of every model as one tidy table."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.evaluation.collecting import collect_costs
from dinodp.jobs.logs import begin_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
fits, scores = ([Path(path) for path in paths] for paths in (snakemake.input.fits, snakemake.input.scores))
collect_costs([Path(path) for path in snakemake.input.embeddings], fits, scores, Path(snakemake.output.table))
