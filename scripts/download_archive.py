"""Fetch, verify and unpack one archive."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.datasets.archives import fetch_archive
from dinodp.jobs.files import write_text
from dinodp.jobs.logs import begin_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
folder = fetch_archive(snakemake.wildcards.archive, snakemake.params.options, Path(snakemake.params.folder))
write_text(Path(snakemake.output.done), f"{folder}\n")
