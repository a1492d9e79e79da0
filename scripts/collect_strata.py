"""The strata of all models that the report shows, as one table."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.analysis.strata import collect_strata
from dinodp.logs import log_to_file

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log_to_file(snakemake.log[0])
collect_strata([Path(path) for path in snakemake.input.strata], Path(snakemake.output.table))
