"""A student of an embedding's backbone, from the normal training images of a data set."""

from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.backbones import embedding_options
from dinodp.datasets.manifest import read_manifest, select
from dinodp.distillation.training import NormalImages, distil
from dinodp.images import read_image
from dinodp.jobs.costs import measured, set_threads, write_cost
from dinodp.jobs.devices import take_device
from dinodp.jobs.logs import begin_job
from dinodp.jobs.origin import require_unchanged
from dinodp.options.distillation import DistillationOptions

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

begin_job(snakemake)
set_threads(snakemake.threads)
device = take_device(snakemake.params.device)
train = select(read_manifest(Path(snakemake.input.manifest)), "train")
images = list(train.loc[train["label"] == "normal", ["image", "image_sha256"]].itertuples(index=False, name=None))


def read(index):
    """The image, which must be the one of the manifest."""
    require_unchanged(*images[index])
    return read_image(images[index][0])


normal = NormalImages(snakemake.wildcards.dataset, [digest for _, digest in images], read)
with measured(device) as cost:
    spent = distil(
        embedding_options(snakemake.params.options).load(device),
        normal,
        DistillationOptions.read(snakemake.params.training, "run.distillation"),
        Path(snakemake.output.student).parent,
    )
write_cost(Path(snakemake.output.cost), {**cost, **spent})
