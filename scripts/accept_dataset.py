"""Stop the run unless every deviation of a data set is accepted by name."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.datasets.verification import require_accepted
from dinodp.jobs.files import write_text
from dinodp.jobs.logs import begin_job
from dinodp.jobs.origin import read_result

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
report = read_result(Path(snakemake.input.report))
accepted = require_accepted(snakemake.wildcards.dataset, report, snakemake.params.accept, snakemake.input.report)
write_text(Path(snakemake.output.accepted), accepted)
