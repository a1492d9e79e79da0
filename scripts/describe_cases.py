"""Size and contrast of the lesions, level of the slices and metadata of the test images."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.datasets.manifest import read_manifest
from dinodp.evaluation.case_properties import describe_cases
from dinodp.jobs.logs import begin_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
manifest = read_manifest(Path(snakemake.input.manifest))
metadata = next((Path(path) for path in snakemake.input.metadata), None)
describe_cases(manifest, snakemake.params.mask_rule, Path(snakemake.output.cases), metadata)
