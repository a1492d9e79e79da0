"""One table as CSV, Markdown and LaTeX."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.jobs.logs import begin_job
from dinodp.options.protocol import Protocol
from dinodp.report.table_job import make_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
make_table(
    snakemake.wildcards.table,
    *(Path(path) for path in (snakemake.input.metrics, snakemake.input.costs, snakemake.input.published)),
    *(Path(path) for path in (snakemake.output.csv, snakemake.output.md, snakemake.output.tex)),
    protocol=Protocol.of(snakemake.params.protocol),
)
