"""Tidy tables of a whole run, gathered from the files that its jobs wrote."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dinodp import store
from dinodp.errors import InputError
from dinodp.jobs.origin import AGAIN, name_of, origin_of, read_result, require_made_from, write_table
from dinodp.options import places


def collect_metrics(files: Sequence[Path], curves: Sequence[Path], path: Path) -> None:
    """Write one row per value: dataset, embedding, model, family, normalised, variant, seed, score, primary, ...

    ``variant``: the model is another than the paper's (`ModelOptions.is_variant`); ``primary``: the score is the
    model's first; then mask_rule, metric, value. ``curves`` are of the same jobs in the same order.
    Raises InputError as `read_evaluations` does.
    """
    contents = read_evaluations(files, curves)
    rows = [row for content in contents for row in _tidy_rows(content)]
    write_table(path, pd.DataFrame(rows).to_csv(index=False), __name__, digests_of(files, contents))


def read_evaluations(files: Sequence[Path], curves: Sequence[Path]) -> list[dict[str, Any]]:
    """The metrics of a run's jobs.

    Raises InputError for metrics that are damaged, lie under the name of another job, were not made from the scores
    that their curves were made from, or come from another manifest than others of their data set.
    """
    contents = [read_result(file) for file in files]
    manifests: dict[str, tuple[str, Path]] = {}
    for file, content, curve in zip(files, contents, curves, strict=True):
        _require_place(file, content)
        made_from = store.read_inputs(curve, "curves")
        if made_from != origin_of(content).made_from:
            raise InputError(
                f"{file} and {curve} were not made from the same scores, one of them is of another run: delete both "
                "and run again."
            )
        digest, first = manifests.setdefault(content["dataset"], (made_from["manifest"], file))
        require_made_from(file, made_from, "manifest", digest, f"the manifest that {first} was made from")
    return contents


def _require_place(file: Path, content: Mapping[str, Any]) -> None:
    """Metrics lie where their job writes them."""
    names = ("dataset", "embedding", "model", "seed")
    if missing := [name for name in (*names, "options", "metrics") if name not in content]:
        raise InputError(f"{file} lacks {', '.join(missing)}, so it holds no metrics: {AGAIN}.")
    place = places.fill(places.METRICS, **{name: content[name] for name in names})
    if "results" in file.parts and not file.as_posix().endswith(place):
        raise InputError(f"{file} holds what belongs at {place}: {AGAIN}.")


def digests_of(files: Sequence[Path], contents: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The digest of each of the metrics by its name."""
    pairs = zip(files, contents, strict=True)
    return {name_of(file): origin_of(content).content_sha256 for file, content in pairs}


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


def collect_costs(embeddings: Sequence[Path], fits: Sequence[Path], scores: Sequence[Path], path: Path) -> None:
    """Join the costs of embedding, fitting and scoring to one row per (dataset, embedding, model, seed)."""
    backbone_ms = {}
    for file in embeddings:
        names = places.parse(places.TOKENS_COST, file)
        backbone_ms[names["dataset"], names["embedding"]] = ms_per_image(read_result(file))
    rows = []
    for fit_file, score_file in zip(fits, scores, strict=True):
        names = places.parse(places.MODEL_COST, fit_file)
        fit, score = read_result(fit_file), read_result(score_file)
        gpu = [value for value in (fit["peak_gpu_mib"], score["peak_gpu_mib"]) if value is not None]
        rows.append(
            {
                **names,
                "seed": int(names["seed"]),
                "fit_seconds": fit["seconds"],
                "backbone_ms_per_image": backbone_ms[names["dataset"], names["embedding"]],
                "scoring_ms_per_image": ms_per_image(score),
                "peak_host_mib": max(fit["peak_host_mib"], score["peak_host_mib"]),
                "peak_gpu_mib": max(gpu) if gpu else None,
                "model_mib": fit.get("model_mib"),
                "active_components": fit.get("active_components"),
                "device": score["device"],
            }
        )
    write_table(path, pd.DataFrame(rows).to_csv(index=False), __name__, {})


def ms_per_image(cost: Mapping[str, float]) -> float | None:
    """What an image took; None where a job had none."""
    return 1000 * cost["seconds"] / cost["images"] if cost.get("images") else None
