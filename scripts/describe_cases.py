"""Size and contrast of the lesions and level of the slices of the test images."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.datasets.manifest import read_manifest, select
from dinodp.evaluation.case_properties import describe_cases
from dinodp.jobs.logs import begin_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
test = select(read_manifest(Path(snakemake.input.manifest)), "test")
describe_cases(test, snakemake.params.mask_rule, Path(snakemake.output.cases))
