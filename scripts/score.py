"""Scores of every patch of one split, or of a shard of it, by one fitted model."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.datasets.manifest import manifest_digest, read_manifest, select
from dinodp.embeddings.shards import Shard
from dinodp.families import model_options
from dinodp.families.base import IMAGES_PER_SHARD
from dinodp.families.stages import load_model, open_split, require_same_embedding, score_split
from dinodp.jobs.costs import measured, set_threads, write_cost
from dinodp.jobs.devices import device_of_models, take_device
from dinodp.jobs.logs import begin_job
from dinodp.store import digest_of

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
fitted = Path(snakemake.input.model)
model = load_model(fitted, options, train, device=device, seed=int(snakemake.wildcards.seed))
rows = select(manifest, split)
images = Shard.of(snakemake.wildcards).images(len(rows), IMAGES_PER_SHARD)
source = open_split(Path(snakemake.input.tokens), options, grid, manifest, split, images=images)
require_same_embedding(train, source)
with measured(device_of_models(device)) as cost:
    spent = score_split(
        model,
        source,
        rows[images.start : images.stop],
        Path(snakemake.output.scores),
        image_score_fraction=snakemake.params.image_score_fraction,
        image_score_sigma=snakemake.params.image_score_sigma,
        background=options.background,
        made_from={
            "manifest": manifest_digest(manifest),
            "model": digest_of(fitted),
            "tokens": source.digest,
        },
    )
write_cost(Path(snakemake.output.cost), {**cost, **spent})
