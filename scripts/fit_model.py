"""Fit one density model (or memorise the training set) from one seed."""

from typing import TYPE_CHECKING

from dinodp.families.fit_job import FitJob
from dinodp.jobs.logs import begin_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
files, made, params = snakemake.input, snakemake.output, snakemake.params
job = FitJob(
    manifest=files.manifest,
    train=files.train,
    valid=files.valid,
    model=made.model,
    cost=made.cost,
    options=params.options,
    grid=params.grid,
    seed=int(snakemake.wildcards.seed),
    device=params.device,
    threads=snakemake.threads,
    cache=params.cache,
)
job.run(params.processes)
