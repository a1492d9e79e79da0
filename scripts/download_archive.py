"""Fetch, verify and unpack one archive."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.datasets.archives import fetch_archive
from dinodp.jobs.files import write_text
from dinodp.jobs.logs import begin_job
from dinodp.options.archive import ArchiveOptions

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
name = snakemake.wildcards.archive
options = ArchiveOptions.read(snakemake.params.options, f"Archive {name}")
folder = fetch_archive(name, options, Path(snakemake.params.folder))
write_text(Path(snakemake.output.done), f"{folder}\n")
