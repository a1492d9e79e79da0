# dinodp: from folders of images to the tables and figures of the paper.
#   snakemake --cores 2                                      the demo (phantoms, no download)
#   snakemake --cores 8 --configfile config/paper.yaml       the paper
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")


# Whoever takes this file as a module has a folder of his own, and this one may be an address (docs/cluster.md).
HERE = Path(workflow.current_basedir.get_path_or_uri(secret_free=True))


report: "report/workflow.rst"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/embeddings.smk"
include: "rules/models.smk"
include: "rules/scoring.smk"
include: "rules/evaluation.smk"
include: "rules/analysis.smk"
include: "rules/reporting.smk"


if RUN.shards > 1:

    include: "rules/sharding.smk"


wildcard_constraints:
    archive=r"[a-z0-9_]+",
    dataset=r"[a-z0-9_]+",
    embedding=r"[a-z0-9_]+",
    model=r"[a-z0-9_]+",
    seed=r"\d+",
    split="train|valid|test",
    table=r"[a-z0-9_]+",
    figure=r"[a-z0-9_]+",


rule all:
    input:
        all_tables(),
        all_figures(),
        places.METRICS_TABLE,
        places.INTERVALS,
        places.COSTS_TABLE,
        places.STRATA_TABLE,
        alignment_files("csv"),
        places.SUMMARY,
        places.REPORT,
    localrule: True
