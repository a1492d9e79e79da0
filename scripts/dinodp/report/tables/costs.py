"""What the models cost."""

import pandas as pd

from dinodp.errors import InputError
from dinodp.options.protocol import Protocol
from dinodp.report.tables.rows import in_order, mean_and_std
from dinodp.report.tables.table import SPREAD_NOTE, Table

COSTS = (
    "fit_seconds",
    "backbone_ms_per_image",
    "scoring_ms_per_image",
    "total_ms_per_image",
    "peak_host_mib",
    "peak_gpu_mib",
    "model_mib",
    "active_components",
)


def make(metrics: pd.DataFrame, costs: pd.DataFrame, published: pd.DataFrame, protocol: Protocol) -> Table:
    """Time, memory and size of each model; mean and standard deviation over seeds."""
    if costs.empty:
        raise InputError("Table 'costs' has no row: the run measured no cost of any model.")
    families = metrics[["dataset", "embedding", "model", "family"]].drop_duplicates()
    rows = costs.merge(families, how="left", on=["dataset", "embedding", "model"]).fillna({"family": "", "device": ""})
    rows["total_ms_per_image"] = rows["backbone_ms_per_image"] + rows["scoring_ms_per_image"]
    frame = mean_and_std(rows, ["dataset", "embedding", "family", "model", "device"], COSTS)
    notes = (SPREAD_NOTE, "Host memory is the peak of the whole process. Times hold for the device named only.")
    return Table(in_order(frame).drop(columns="family"), "Time, memory and size of the models.", notes)
