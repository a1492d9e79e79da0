"""The run's tables on one page, with the note that says what they show."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.jobs.logs import begin_job
from dinodp.report.table_job import summarise

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
tables = [Path(path) for path in snakemake.input.tables]
summarise(snakemake.params.title, snakemake.params.note, tables, Path(snakemake.output.summary))
