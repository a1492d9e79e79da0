"""Where results lie below the working directory: patterns, as rules use them, and the names read back from a path."""

import re
from pathlib import Path

FITTED = "{dataset}/{embedding}/{model}/seed-{seed}"
MANIFEST = "results/data/{dataset}/manifest.csv"
CHECKSUMS = "results/data/{dataset}/checksums.csv"
VERIFICATION = "results/data/{dataset}/verification.{extension}"
ACCEPTED = "results/data/{dataset}/accepted.txt"
CASES = "results/data/{dataset}/cases.csv"
TOKENS = "results/embeddings/{dataset}/{embedding}/{split}.h5"
TOKENS_COST = "results/embeddings/{dataset}/{embedding}/{split}.cost.json"
MODEL = f"results/models/{FITTED}.h5"
MODEL_COST = f"results/models/{FITTED}.cost.json"
SCORES = f"results/scores/{FITTED}/{{split}}.h5"
SCORES_COST = f"results/scores/{FITTED}/{{split}}.cost.json"
METRICS = f"results/metrics/{FITTED}.json"
CURVES = f"results/curves/{FITTED}.h5"
STRATA = f"results/strata/{FITTED}.csv"
ALIGNMENT = "results/alignment/{dataset}/{embedding}.{extension}"
FIGURE = "results/figures/{dataset}/{embedding}/{figure}.{extension}"
TABLE = "results/tables/{table}.{extension}"


def fill(pattern: str, **names: object) -> str:
    """A pattern with some of its names given; the others stay as they are."""
    return re.sub(r"{(\w+)}", lambda found: str(names.get(found[1], found[0])), pattern)


def parse(pattern: str, path: Path | str) -> dict[str, str]:
    """The names in the path of a result, wherever its ``results`` folder lies. Raises ValueError for another path."""
    parts = re.split(r"{(\w+)}", pattern)
    names = (f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts))
    found = re.search("(?:^|/)" + "".join(names) + "$", Path(path).as_posix())
    if found is None:
        raise ValueError(f"{path} does not lie at {pattern}")
    return found.groupdict()
