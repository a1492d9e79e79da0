"""Metrics of one model by size and contrast of the lesion and by level of the slice."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from dinodp.analysis.strata import stratify
from dinodp.logs import begin_job
from dinodp.manifest import read_manifest

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
stratify(
    read_manifest(Path(snakemake.input.manifest)),
    pd.read_csv(snakemake.input.cases),
    Path(snakemake.input.test),
    Path(snakemake.input.valid),
    snakemake.params.score,
    snakemake.params.run,
    dict(snakemake.wildcards),
    Path(snakemake.output.strata),
)
