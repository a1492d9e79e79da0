"""One file of scores from those of its shards."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.costs import gather_costs
from dinodp.logs import log_to_file
from dinodp.parallel.sharding import gather_scores

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log_to_file(snakemake.log[0])
gather_scores([Path(path) for path in snakemake.input.scores], Path(snakemake.output.scores))
gather_costs([Path(path) for path in snakemake.input.costs], Path(snakemake.output.cost))
