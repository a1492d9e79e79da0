"""The metrics: one module per metric, with ``METRIC``. Each is found by itself, and named as its module.

``METRICS``: every name that a table may have, also those at thresholds, in the order in which they are shown.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from dinodp.metrics.metric import Metric
from dinodp.options.protocol import FALSE_POSITIVE_RATES, THRESHOLD_MAPS

Kind = Literal["pixels", "thresholds", "images"]


def _defined() -> dict[str, Metric]:
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    found = {name: importlib.import_module(f"{__name__}.{name}").METRIC for name in names}
    return dict(sorted(found.items(), key=lambda item: (item[1].rank, item[0])))


DEFINED = _defined()


def metrics_of(kind: Kind) -> dict[str, Metric]:
    """The metrics of pixels, at thresholds or of images, by name, in order."""
    return {name: metric for name, metric in DEFINED.items() if metric.of == kind}


def at_threshold(name: str, threshold: str) -> str:
    """The name of a metric at a threshold: ``dice`` at ``threshold_fpr05`` is ``dice_fpr05``."""
    return f"{name}_{threshold.removeprefix('threshold_')}"


def _shown() -> Iterator[tuple[str, Metric]]:
    for name, metric in DEFINED.items():
        if metric.of != "thresholds":
            yield name, metric
            continue
        for prefix, words in THRESHOLD_MAPS.items():
            for rate, share in FALSE_POSITIVE_RATES.items():
                heading = f"{metric.heading}{words}, FPR {100 * share:.0f} %"
                yield at_threshold(name, prefix + rate), replace(metric, heading=heading)


METRICS = dict(_shown())
