"""Paths of results are made and read by one set of patterns."""

from pathlib import Path

import pytest

from dinodp.options import places

NAMES = {"dataset": "resc", "embedding": "dinov2_vits14", "model": "dpmm_diag", "seed": "3", "split": "test",
         "figure": "roc", "table": "table1", "shard": "0", "shards": "2",
         "archive": "bmad", "extension": "png"}  # fmt: skip
PATTERNS = [name for name, value in vars(places).items() if isinstance(value, str) and value.startswith("results/")]


@pytest.mark.parametrize("name", PATTERNS)
def test_what_is_filled_is_read_back(name: str) -> None:
    pattern = getattr(places, name)
    path = places.fill(pattern, **NAMES)
    assert "{" not in path
    for folder in ("", "/scratch/run", ".snakemake/storage/fs"):
        found = places.parse(pattern, Path(folder, path))
        assert places.fill(pattern, **found) == path


def test_names_that_are_not_given_stay() -> None:
    assert places.fill(places.SCORES, split="test") == f"results/scores/{places.FITTED}/test.h5"


@pytest.mark.parametrize("path", ["results/metrics/a/b/c/seed-0.h5", "metrics/a/b/c/seed-0.json", "xresults/metrics/a"])
def test_another_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="does not lie at results/metrics/"):
        places.parse(places.METRICS, path)
