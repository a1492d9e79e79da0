"""One file of embeddings from those of its shards."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.embeddings.shards import gather_embeddings
from dinodp.jobs.costs import gather_costs
from dinodp.jobs.logs import begin_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
gather_embeddings([Path(path) for path in snakemake.input.tokens], Path(snakemake.output.tokens))
gather_costs([Path(path) for path in snakemake.input.costs], Path(snakemake.output.cost))
