"""One figure of one data set and embedding, comparing the run's figure models."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.jobs.logs import begin_job
from dinodp.report.figure_inputs import FigureFiles, load_figure_data
from dinodp.report.figures import draw_figure, save_figure

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
files = snakemake.input
per_model = zip(files.models, files.test, files.valid, files.metrics, files.curves, strict=True)
data = load_figure_data(
    title=f"{snakemake.wildcards.dataset}, {snakemake.wildcards.embedding}",
    names=snakemake.params.names,
    manifest_path=Path(files.manifest),
    tokens=Path(files.tokens),
    per_model=[FigureFiles(*map(Path, paths)) for paths in per_model],
    grid=snakemake.params.grid,
    mask_rule=snakemake.params.mask_rule,
)
save_figure(draw_figure(snakemake.wildcards.figure, data), Path(snakemake.output.png), Path(snakemake.output.pdf))
