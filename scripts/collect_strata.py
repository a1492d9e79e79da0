"""The strata of all models that the report shows, as one table."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.evaluation.strata import collect_strata
from dinodp.jobs.logs import begin_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
collect_strata([Path(path) for path in snakemake.input.strata], Path(snakemake.output.table))
