"""What of the configuration each result must be made for (`dinodp.jobs.asked`), as plain values that jobs are told.

A level changes exactly where the rule that makes the file runs again: it holds what that rule's parameters hold.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from dinodp.configuration import Configuration
from dinodp.datasets.sources.base import DatasetOptions
from dinodp.jobs.origin import sha256
from dinodp.options import places

DIGITS = 16  # hexadecimal, of a digest: enough to tell the configurations of one folder apart
DATA = {"dataset": "dataset"}  # each level, and the name in the path whose options it is
EMBEDDED = {**DATA, "embedding": "embedding", "split": "split"}
FITTED = {**DATA, "embedding": "embedding", "grid": "embedding", "model": "model", "seed": "seed"}
SCORED = {**FITTED, "scores": "model", "split": "split"}
EVALUATED = {**FITTED, "scores": "model", "evaluation": ""}
SHARD = {"shard": "shard", "shards": "shards"}
COSTS, RUN = {"costs": ""}, {"run": ""}
PLACES: dict[str, dict[str, str]] = {
    places.MANIFEST: DATA,
    places.CHECKSUMS: DATA,
    places.fill(places.VERIFICATION, extension="json"): {**DATA, "expect": "dataset"},
    places.CASES: {**DATA, "mask_rule": "", "metadata": "dataset"},
    places.TOKENS: EMBEDDED,
    places.TOKENS_SHARD: {**EMBEDDED, **SHARD},
    places.MODEL: FITTED,
    places.SCORES: SCORED,
    places.SCORES_SHARD: {**SCORED, **SHARD},
    places.METRICS: EVALUATED,
    places.CURVES: EVALUATED,
    places.STRATA: {**EVALUATED, "threshold_maps": "", "metadata": "dataset"},
    places.fill(places.ALIGNMENT, extension="csv"): {**DATA, "embedding": "embedding", "grid": "embedding",
                                                     "alignment": "", "mask_rule": ""},
    places.TOKENS_COST: EMBEDDED,
    places.TOKENS_SHARD_COST: {**EMBEDDED, **SHARD},
    places.MODEL_COST: FITTED,
    places.SCORES_COST: SCORED,
    places.SCORES_SHARD_COST: {**SCORED, **SHARD},
    places.METRICS_TABLE: RUN,
    places.INTERVALS: {**RUN, "baseline": ""},
    places.DIFFERENCES: {**RUN, "baseline": ""},
    places.STRATA_TABLE: {"shown": "", "threshold_maps": ""},
    places.COSTS_TABLE: COSTS,
    places.TABLE: {**RUN, "comparison": "", "table": "table"},
}  # fmt: skip


def asked_for(
    configuration: Configuration, evaluated: Mapping[str, Any], compared: Mapping[str, Any]
) -> dict[str, Any]:
    """Levels by place, and the digest of each level's options by name, for `dinodp.jobs.asked.ask`.

    ``evaluated``, ``compared``: the choices of the run that decide how scores are evaluated, and how values are read.
    """
    run, models = configuration.run, configuration.models
    levels = {
        "dataset": _each({name: _reading(options) for name, options in configuration.datasets.items()}),
        "expect": _each({name: _plain(options.expect) for name, options in configuration.datasets.items()}),
        "metadata": _each({name: options.grouping() for name, options in configuration.datasets.items()}),
        "embedding": _each({name: options.decisive() for name, options in configuration.embeddings.items()}),
        "grid": _each({name: options.grid for name, options in configuration.embeddings.items()}),
        "model": _each({name: options.fit_options() for name, options in models.items()}),
        "scores": _each(
            {
                name: [options.decisive(), run.image_score_fraction, run.image_score_sigma]
                for name, options in models.items()
            }
        ),
    }
    constant = {
        "evaluation": dict(evaluated),
        "comparison": dict(compared),
        "mask_rule": run.mask_rules[0],
        "threshold_maps": run.threshold_maps,
        "baseline": run.baseline,
        **_tables(configuration, levels, dict(evaluated)),
    }
    return {"places": PLACES, "levels": {**levels, **{level: {"": _digest(item)} for level, item in constant.items()}}}


def _tables(configuration: Configuration, levels: Mapping[str, Mapping[str, str]], evaluated: Any) -> dict[str, Any]:
    """What decides the tables over the models of the run."""
    run, models = configuration.run, configuration.models

    def over(names: Iterable[str], kind: str = "scores", n_seeds: int | None = None) -> list[Any]:
        """Sorted: order changes no set of files."""
        data = [[name, levels["dataset"][name]] for name in sorted(run.datasets)]
        embeddings = [[name, levels["embedding"][name], levels["grid"][name]] for name in sorted(run.embeddings)]
        seeds = {name: run.seeds[: n_seeds if models[name].is_random else 1] for name in names}
        fitted = [[name, levels[kind][name], sorted(seeds[name])] for name in sorted(names)]
        return [data, embeddings, fitted]

    grouped = [[name, levels["metadata"][name]] for name in sorted(run.datasets)]
    return {
        "costs": over(run.models),
        "run": [over(run.models), evaluated],
        "shown": [over(run.figure_models or run.models, n_seeds=1), evaluated, grouped],
        "alignment": over(run.alignment_models, "model")[2],
    }


def _reading(options: DatasetOptions) -> dict[str, object]:
    """Of a data set that has an archive, its root is one of two places where it may lie."""
    said = options.reading()
    return said if options.archive is None else {key: value for key, value in said.items() if key != "root"}


def _plain(options: Any) -> Any:
    return None if options is None else options.plain()


def _each(content: Mapping[str, Any]) -> dict[str, str]:
    return {name: _digest(value) for name, value in content.items()}


def _digest(content: Any) -> str:
    return sha256(json.dumps(content, sort_keys=True, default=str))[:DIGITS]
