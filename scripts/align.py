"""How far the components of mixtures follow anatomy: table and figure of one data set and embedding."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.datasets.manifest import read_manifest
from dinodp.jobs.logs import begin_job
from dinodp.report.alignment.analysing import align

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
align(
    manifest=read_manifest(Path(snakemake.input.manifest)),
    tokens=Path(snakemake.input.tokens),
    models=[Path(path) for path in snakemake.input.models],
    names=snakemake.params.names,
    place=dict(snakemake.wildcards),
    grid=snakemake.params.grid,
    mask_rule=snakemake.params.mask_rule,
    table=Path(snakemake.output.table),
    png=Path(snakemake.output.png),
    pdf=Path(snakemake.output.pdf),
)
