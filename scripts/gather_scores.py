"""One file of scores from those of its shards."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.datasets.manifest import read_manifest, select
from dinodp.embeddings.shards import gather_scores
from dinodp.jobs.costs import gather_costs
from dinodp.jobs.logs import begin_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
rows = select(read_manifest(Path(snakemake.input.manifest)), snakemake.wildcards.split)
gather_scores([Path(path) for path in snakemake.input.scores], Path(snakemake.output.scores), len(rows))
gather_costs([Path(path) for path in snakemake.input.costs], Path(snakemake.output.cost))
