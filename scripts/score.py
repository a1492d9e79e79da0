"""Scores of every patch of one split by one fitted model."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.costs import measured, set_threads, write_cost
from dinodp.families import load_model, open_split, score_split
from dinodp.logs import log_to_file
from dinodp.manifest import read_manifest, select

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log_to_file(snakemake.log[0])
set_threads(snakemake.threads)
options, grid, split = snakemake.params.options, snakemake.params.grid, snakemake.wildcards.split
manifest = read_manifest(Path(snakemake.input.manifest))
cache = snakemake.config["run"]["cache"]  # no parameter: it changes no result
train = open_split(Path(snakemake.input.train), options, grid, manifest, "train", normal_only=True, cache=cache)
model = load_model(Path(snakemake.input.model), train, device=snakemake.params.device)
source = open_split(Path(snakemake.input.tokens), options, grid, manifest, split)
with measured(snakemake.params.device) as cost:
    spent = score_split(
        model,
        source,
        select(manifest, split),
        Path(snakemake.output.scores),
        image_score_fraction=snakemake.params.image_score_fraction,
    )
write_cost(Path(snakemake.output.cost), {**cost, **spent})
