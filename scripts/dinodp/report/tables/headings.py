"""What columns of tables are called, and with how many decimals their numbers are shown."""

from dinodp.evaluation.bias import metric_name
from dinodp.metrics.definitions import METRICS
from dinodp.options.protocol import FALSE_POSITIVE_RATES, THRESHOLD_MAPS

LABELS = {
    "dataset": "Data set",
    "embedding": "Embedding",
    "model": "Model",
    "score": "Score",
    "normalised": "Unit length",
    "mask_rule": "Mask rule",
    "seeds": "Seeds",
    "fit_seconds": "Fit (s)",
    "backbone_ms_per_image": "Backbone (ms/image)",
    "scoring_ms_per_image": "Scoring (ms/image)",
    "total_ms_per_image": "Total (ms/image)",
    "peak_host_mib": "Peak host (MiB)",
    "peak_gpu_mib": "Peak GPU (MiB)",
    "model_mib": "Model (MiB)",
    "active_components": "Active components",
    "device": "Device",
}
DECIMALS = {"fit_seconds": 1, "peak_host_mib": 0, "peak_gpu_mib": 0, "active_components": 1}
HEALTHY = {
    metric_name(prefix + rate): f"Healthy pixels above the threshold, FPR {100 * share:.0f} %{words}"
    for prefix, words in THRESHOLD_MAPS.items()
    for rate, share in FALSE_POSITIVE_RATES.items()
}
HEADINGS = {**LABELS, **HEALTHY, **{name: metric.shown for name, metric in METRICS.items()}}


def decimals_of(name: str) -> int:
    """Decimals of a metric or a cost."""
    return METRICS[name].decimals if name in METRICS else DECIMALS.get(name, 2)
