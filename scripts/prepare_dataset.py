"""Write the manifest of a data set, and its slices where the source is made of volumes."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.datasets.sources import prepare_dataset
from dinodp.jobs.logs import begin_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
prepare_dataset(snakemake.wildcards.dataset, snakemake.params.options, Path(snakemake.output.manifest).parent)
