"""The metrics: one module per metric, with ``METRIC``. Each is found by itself, and named as its module.

``METRICS``: every name that a table may have, also those at thresholds and at numbers of false regions, in the order in
which they are shown.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from dinodp.metrics.metric import Metric
from dinodp.options.protocol import FALSE_POSITIVE_RATES, FALSE_REGIONS, THRESHOLD_MAPS

Kind = Literal["pixels", "thresholds", "images", "lesions"]


def _defined() -> dict[str, Metric]:
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    found = {name: importlib.import_module(f"{__name__}.{name}").METRIC for name in names}
    return dict(sorted(found.items(), key=lambda item: (item[1].rank, item[0])))


DEFINED = _defined()


def metrics_of(kind: Kind) -> dict[str, Metric]:
    """The metrics of pixels, at thresholds, of images or of lesions, by name, in order."""
    return {name: metric for name, metric in DEFINED.items() if metric.of == kind}


def at_threshold(name: str, threshold: str) -> str:
    """The name of a metric at a threshold: ``dice`` at ``threshold_fpr05`` is ``dice_fpr05``."""
    return f"{name}_{threshold.removeprefix('threshold_')}"


def at_false_regions(name: str, limit: int) -> str:
    """The name of a metric at so many false regions per scan."""
    return f"{name}_{limit}"


def names_of(kind: Kind) -> tuple[str, ...]:
    """The names, as tables have them, of the metrics of a kind, in order."""
    return tuple(name for name, metric in METRICS.items() if metric.of == kind)


def _shown() -> Iterator[tuple[str, Metric]]:
    for name, metric in DEFINED.items():
        for shown, words in _names(name, metric):
            yield shown, replace(metric, heading=metric.heading + words)


def _names(name: str, metric: Metric) -> Iterator[tuple[str, str]]:
    """The names of a metric, and what each appends to its heading."""
    if metric.of == "thresholds":
        for prefix, words in THRESHOLD_MAPS.items():
            for rate, share in FALSE_POSITIVE_RATES.items():
                yield at_threshold(name, prefix + rate), f"{words}, FPR {100 * share:.0f} %"
    elif metric.of == "lesions":
        for limit in FALSE_REGIONS:
            yield at_false_regions(name, limit), f", ≤ {limit} false region{'s' if limit > 1 else ''}"
    else:
        yield name, ""


METRICS = dict(_shown())
