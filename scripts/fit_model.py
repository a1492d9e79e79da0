"""Fit one density model (or memorise the training set) from one seed."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.costs import measured, set_threads, write_cost
from dinodp.families import fit_model, open_split
from dinodp.logs import log_to_file
from dinodp.manifest import read_manifest

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log_to_file(snakemake.log[0])
set_threads(snakemake.threads)
options, grid = snakemake.params.options, snakemake.params.grid
manifest = read_manifest(Path(snakemake.input.manifest))
how = {
    "normal_only": True,
    "cache": snakemake.config["run"]["cache"],
}  # the cache is no parameter: it changes no result
with measured(snakemake.params.device) as cost:
    size = fit_model(
        Path(snakemake.output.model),
        options,
        open_split(Path(snakemake.input.train), options, grid, manifest, "train", **how),
        open_split(Path(snakemake.input.valid), options, grid, manifest, "valid", **how),
        seed=int(snakemake.wildcards.seed),
        device=snakemake.params.device,
    )
write_cost(Path(snakemake.output.cost), {**cost, **size})
