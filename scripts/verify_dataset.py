"""Check the images of a manifest, and against what is published of them; report, never stop."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.datasets.manifest import manifest_digest, read_manifest
from dinodp.datasets.verification import verify_dataset, write_verification
from dinodp.jobs.logs import begin_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
manifest = read_manifest(Path(snakemake.input.manifest))
report, checksums = verify_dataset(manifest, snakemake.params.expect, threads=snakemake.threads)
paths = (Path(snakemake.output[name]) for name in ("report", "page", "checksums"))
made_from = {"manifest": manifest_digest(manifest)}
write_verification(snakemake.wildcards.dataset, report, checksums, *paths, made_from=made_from)
