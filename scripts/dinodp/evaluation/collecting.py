"""Tidy tables of a whole run, gathered from the files that its jobs wrote."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dinodp.jobs.files import read_json, write_text


def collect_metrics(files: Sequence[Path], path: Path) -> None:
    """Write one row per value: dataset, embedding, model, family, normalised, variant, seed, score, primary, ...

    ``variant``: the model is another than the paper's (`ModelOptions.is_variant`); ``primary``: the score is the
    model's first; then mask_rule, metric, value.
    """
    rows = [row for file in files for row in _tidy_rows(read_json(file))]
    write_text(path, pd.DataFrame(rows).to_csv(index=False))


def _tidy_rows(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    options = content["options"]
    labels = {
        "dataset": content["dataset"],
        "embedding": content["embedding"],
        "model": content["model"],
        "family": options["family"],
        "normalised": content["normalised"],
        "variant": content["variant"],
        "seed": int(content["seed"]),
    }
    for score, rules in content["metrics"].items():
        labels |= {"score": score, "primary": score == options["scores"][0]}
        for rule, values in rules.items():
            for metric, value in values.items():
                yield {**labels, "mask_rule": rule, "metric": metric, "value": value}


def _from_path(path: Path, depth: int) -> list[str]:
    """The wildcards in a result's path: the ``depth`` folders between results/<kind>/ and the file."""
    return list(path.parts[-depth - 1 : -1])


def collect_costs(embeddings: Sequence[Path], fits: Sequence[Path], scores: Sequence[Path], path: Path) -> None:
    """Join the costs of embedding, fitting and scoring to one row per (dataset, embedding, model, seed)."""
    backbone_ms = {tuple(_from_path(file, 2)): _ms_per_image(read_json(file)) for file in embeddings}
    rows = []
    for fit_file, score_file in zip(fits, scores, strict=True):
        dataset, embedding, model = _from_path(fit_file, 3)
        fit, score = read_json(fit_file), read_json(score_file)
        gpu = [value for value in (fit["peak_gpu_mib"], score["peak_gpu_mib"]) if value is not None]
        rows.append(
            {
                "dataset": dataset,
                "embedding": embedding,
                "model": model,
                "seed": int(fit_file.name.split(".")[0].removeprefix("seed-")),
                "fit_seconds": fit["seconds"],
                "backbone_ms_per_image": backbone_ms[dataset, embedding],
                "scoring_ms_per_image": _ms_per_image(score),
                "peak_host_mib": max(fit["peak_host_mib"], score["peak_host_mib"]),
                "peak_gpu_mib": max(gpu) if gpu else None,
                "model_mib": fit["model_mib"],
                "active_components": fit["active_components"],
                "device": score["device"],
            }
        )
    write_text(path, pd.DataFrame(rows).to_csv(index=False))


def _ms_per_image(cost: dict[str, float]) -> float | None:
    return 1000 * cost["seconds"] / cost["images"] if cost["images"] else None
