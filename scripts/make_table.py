"""One table as CSV, Markdown and LaTeX."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.logs import log_to_file
from dinodp.protocol import Protocol
from dinodp.reporting import make_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log_to_file(snakemake.log[0])
make_table(
    snakemake.wildcards.table,
    *(Path(path) for path in (snakemake.input.metrics, snakemake.input.costs, snakemake.input.published)),
    *(Path(path) for path in (snakemake.output.csv, snakemake.output.md, snakemake.output.tex)),
    protocol=Protocol.of(snakemake.params.run),
)
