"""Protocols side by side: in what they differ, and what that changes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dinodp.images import MASK_RULES
from dinodp.options.protocol import AUPR_NAMES, Protocol
from dinodp.report.comparison import COMPARABLE, Record

QUANTITIES: dict[str, Callable[[Protocol], str]] = {
    "Pixel AUROC": lambda protocol: "pixel_auroc",
    "Pixel AUPR": lambda protocol: protocol.aupr_metric,
    "Dice, FPR 10 %": lambda protocol: protocol.dice_metrics[0],
    "Dice, FPR 5 %": lambda protocol: protocol.dice_metrics[1],
    "Dice, FPR 1 %": lambda protocol: protocol.dice_metrics[2],
    "Image AUROC": lambda protocol: "image_auroc",
}
STARTS = {
    "paper": "first K embeddings of the first batch (half of one image)",
    "spread": "K embeddings drawn over the whole training set",
}
ORDERS = {"after_normalisation": "after the scaling to unit length", "before_normalisation": "before it"}
MAPS = {"patch": "patches of the normal validation images", "pixel": "their maps at full resolution"}


def protocol_table(config: Mapping[str, Any], rows: Sequence[Record]) -> dict[str, Any]:
    """Names, choices and values of the run's protocols, from the result ``rows``; empty where the run names none.

    ``choices``: (what is chosen, one text per protocol); ``rows``: data set, embedding, quantity, published value where
    that of the first protocol is comparable with it, one result row or None per protocol, and the last minus the first.
    """
    run = config["run"]
    named = {name: _protocol(run, entry) for name, entry in run.get("protocols", {}).items()}
    if not named:
        return {}
    models = [run["protocols"][name]["model"] for name in named]
    return {
        "names": list(named),
        "choices": _choices([config["models"][model] for model in models], models, list(named.values())),
        "rows": _rows(run, rows, models, list(named.values())),
    }


def _protocol(run: Mapping[str, Any], entry: Mapping[str, Any]) -> Protocol:
    return Protocol.of({**run, **{key: value for key, value in entry.items() if key != "model"}})


def _choices(
    options: Sequence[Mapping[str, Any]], models: Sequence[str], protocols: Sequence[Protocol]
) -> list[tuple[str, list[str]]]:
    return [
        ("Model", list(models)),
        ("Means start from", [STARTS.get(str(entry.get("init")), "–") for entry in options]),
        (
            "Embeddings are resampled to the grid",
            [ORDERS[entry.get("resample", "after_normalisation")] for entry in options],
        ),
        ("Thresholds are calibrated on", [MAPS[protocol.threshold_maps] for protocol in protocols]),
        ("AUPR", [AUPR_NAMES[protocol.aupr] for protocol in protocols]),
        ("Anomalous in a mask", [MASK_RULES[protocol.mask_rule].words for protocol in protocols]),
    ]


def _rows(
    run: Mapping[str, Any], rows: Sequence[Record], models: Sequence[str], protocols: Sequence[Protocol]
) -> list[dict[str, Any]]:
    found: dict[tuple[str, ...], Record] = {}
    for row in rows:
        if not row["primary"]:
            continue
        found[tuple(str(row[name]) for name in ("dataset", "embedding", "model", "mask_rule", "metric"))] = row
    table = []
    for dataset in run["datasets"]:
        for embedding in run["embeddings"]:
            for name, metric in QUANTITIES.items():
                values = [
                    found.get((dataset, embedding, model, protocol.mask_rule, metric(protocol)))
                    for model, protocol in zip(models, protocols, strict=True)
                ]
                if any(values):
                    table.append({"dataset": dataset, "embedding": embedding, "name": name, **_compared(values)})
    return table


def _compared(values: Sequence[Record | None]) -> dict[str, Any]:
    first, last = values[0], values[-1]
    known = first is not None and last is not None
    return {
        "published": first["published"] if first and first["verdict"] in COMPARABLE else None,
        "values": list(values),
        "difference": last["mean"] - first["mean"] if known and first and last else None,
    }
