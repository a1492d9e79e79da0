"""Where results lie below the working directory: patterns, as rules use them, and the names read back from a path."""

import re
from pathlib import Path

from dinodp.jobs.asked import names_in

COST = ".cost.json"  # of what a job made, beside it
FITTED = "{dataset}/{embedding}/{model}/seed-{seed}"
UNPACKED = "results/archives/{archive}/unpacked.txt"
MANIFEST = "results/data/{dataset}/manifest.csv"
CHECKSUMS = "results/data/{dataset}/checksums.csv"
VERIFICATION = "results/data/{dataset}/verification.{extension}"
ACCEPTED = "results/data/{dataset}/accepted.txt"
CASES = "results/data/{dataset}/cases.csv"
STUDENT = "results/students/{dataset}/{embedding}"
STUDENT_FILE, STUDENT_WEIGHTS = f"{STUDENT}/student.json", f"{STUDENT}/student.safetensors"
STUDENT_COST = STUDENT + COST
TOKENS = "results/embeddings/{dataset}/{embedding}/{split}.h5"
TOKENS_SHARD = "results/embeddings/{dataset}/{embedding}/{split}/shard-{shard}-of-{shards}.h5"
MODEL = f"results/models/{FITTED}.h5"
SCORES = f"results/scores/{FITTED}/{{split}}.h5"
SCORES_SHARD = f"results/scores/{FITTED}/{{split}}/shard-{{shard}}-of-{{shards}}.h5"
METRICS = f"results/metrics/{FITTED}.json"
CURVES = f"results/curves/{FITTED}.h5"
STRATA = f"results/strata/{FITTED}.csv"
ALIGNMENT = "results/alignment/{dataset}/{embedding}.{extension}"
FIGURE = "results/figures/{dataset}/{embedding}/{figure}.{extension}"
METRICS_TABLE = "results/metrics.csv"
COSTS_TABLE = "results/costs.csv"
INTERVALS = "results/intervals.csv"
DIFFERENCES = "results/differences.csv"
STRATA_TABLE = "results/strata.csv"
SUMMARY = "results/summary.md"
REPORT = "results/report.html"
TABLE = "results/tables/{table}.{extension}"
TOKENS_COST, TOKENS_SHARD_COST, MODEL_COST, SCORES_COST, SCORES_SHARD_COST = (
    pattern.removesuffix(".h5") + COST for pattern in (TOKENS, TOKENS_SHARD, MODEL, SCORES, SCORES_SHARD)
)


def fill(pattern: str, **names: object) -> str:
    """A pattern with some of its names given; the others stay as they are."""
    return re.sub(r"{(\w+)}", lambda found: str(names.get(found[1], found[0])), pattern)


def parse(pattern: str, path: Path | str) -> dict[str, str]:
    """The names in the path of a result, wherever its ``results`` folder lies. Raises ValueError for another path."""
    names = names_in(pattern, path)
    if names is None:
        raise ValueError(f"{path} does not lie at {pattern}")
    return names
