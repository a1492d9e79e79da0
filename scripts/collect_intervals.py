"""Intervals of all metrics over the test subjects, and of each model minus the baseline."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.evaluation.intervals import collect_intervals
from dinodp.jobs.logs import begin_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
metrics, curves = ([Path(path) for path in paths] for paths in (snakemake.input.metrics, snakemake.input.curves))
intervals, differences = Path(snakemake.output.intervals), Path(snakemake.output.differences)
collect_intervals(metrics, curves, snakemake.params.baseline, intervals, differences)
