"""Scores of every patch of one split, or of a shard of it, by one fitted model."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.datasets.manifest import read_manifest, select
from dinodp.embeddings.shards import Shard
from dinodp.families import model_options
from dinodp.families.base import IMAGES_PER_SHARD
from dinodp.families.stages import load_model, open_split, score_split
from dinodp.jobs.costs import measured, set_threads, write_cost
from dinodp.jobs.devices import take_device
from dinodp.jobs.logs import begin_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
set_threads(snakemake.threads)
device = take_device(snakemake.params.device)
grid, split = snakemake.params.grid, snakemake.wildcards.split
idle = snakemake.config["models"][snakemake.wildcards.model]  # keys that change no result are no parameters
options = model_options({**idle, **snakemake.params.options})
manifest = read_manifest(Path(snakemake.input.manifest))
cache = snakemake.params.cache
train = open_split(Path(snakemake.input.train), options, grid, manifest, "train", normal_only=True, cache=cache)
model = load_model(Path(snakemake.input.model), options, train, device=device)
rows = select(manifest, split)
images = Shard.of(snakemake.wildcards).images(len(rows), IMAGES_PER_SHARD)
source = open_split(Path(snakemake.input.tokens), options, grid, manifest, split, images=images)
with measured(device) as cost:
    spent = score_split(
        model,
        source,
        rows[images.start : images.stop],
        Path(snakemake.output.scores),
        image_score_fraction=snakemake.params.image_score_fraction,
        background=options.background,
    )
write_cost(Path(snakemake.output.cost), {**cost, **spent})
