"""Patch embeddings of one split, or of a shard of it."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.backbones import embedding_options
from dinodp.datasets.manifest import manifest_digest, read_manifest, select
from dinodp.embeddings import embed_split
from dinodp.embeddings.shards import Shard
from dinodp.jobs.costs import measured, set_threads, write_cost
from dinodp.jobs.devices import take_device
from dinodp.jobs.logs import begin_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
set_threads(snakemake.threads)
device = take_device(snakemake.params.device)
options = embedding_options(snakemake.params.options)
backbone = options.load(device)
manifest = read_manifest(Path(snakemake.input.manifest))
options.check_data(select(manifest, "train")["image_sha256"])
with measured(device) as cost:
    spent = embed_split(
        select(manifest, snakemake.wildcards.split),
        backbone,
        Path(snakemake.output.tokens),
        options.decisive(),
        shard=Shard.of(snakemake.wildcards),
        batch_size=snakemake.params.batch_size,
        workers=snakemake.threads,
        made_from={"manifest": manifest_digest(manifest)},
    )
write_cost(Path(snakemake.output.cost), {**cost, **spent})
