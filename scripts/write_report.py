"""The run's comparison report, one HTML file."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.jobs.logs import begin_job
from dinodp.report.page import write_report
from dinodp.report.run_files import ModelFiles, ReportFiles

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
files, params = snakemake.input, snakemake.params
per_model = zip(files.test, files.valid, files.model_metrics, files.curves, strict=True)
write_report(
    Path(snakemake.output.report),
    ReportFiles(
        metrics=Path(files.metrics),
        costs=Path(files.costs),
        published=Path(files.published),
        manifests={name: Path(path) for name, path in zip(params.datasets, files.manifests, strict=True)},
        checksums={name: Path(path) for name, path in zip(params.datasets, files.checksums, strict=True)},
        models=[ModelFiles(*map(Path, paths)) for paths in per_model],
        figures=[Path(path) for path in files.figures],
        intervals=Path(files.intervals),
        differences=Path(files.differences),
        strata=Path(files.strata),
        alignment=[Path(path) for path in files.alignment],
        alignment_figures=[Path(path) for path in files.alignment_figures],
        students=[Path(path) for path in files.students],
        student_costs=[Path(path) for path in files.student_costs],
    ),
    params.config,
    params.command,
    params.commit,
)
