"""Which test images a reader should see: the best, the median and the worst of a model, and its false alarms."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from dinodp.images import read_lesion
from dinodp.metrics.anomaly_maps import Map, anomaly_map
from dinodp.options.protocol import Protocol

PER_GROUP = 3
Floats = npt.NDArray[np.float64]
BEST, MEDIAN, WORST = "best Dice", "median Dice", "worst Dice"
FALSE_ALARM = "normal, highest score"
FOUND, MISSED = "anomalous, highest score", "anomalous, lowest score"


def lesion_mask(row: pd.Series, mask_rule: str, size: Sequence[int] | None = None) -> npt.NDArray[np.bool_]:
    """Anomalous pixels [H, W] of a manifest row; resized to ``size`` (height, width) if one is given."""
    if size is None and row["mask"]:
        return read_lesion(row["mask"], mask_rule)
    return read_lesion(row["mask"], mask_rule, size or (int(row["height"]), int(row["width"])))


def image_dice(manifest: pd.DataFrame, maps: Map, threshold: float, protocol: Protocol) -> tuple[Floats, Floats]:
    """Dice of each image as the protocol reads masks and maps, and the lesion's share of the image, [n] each.

    The Dice of an image without an anomalous pixel is NaN.
    """
    dice, share = np.full(len(manifest), np.nan), np.zeros(len(manifest))
    for index in np.flatnonzero(manifest["mask"].to_numpy() != ""):
        mask = lesion_mask(manifest.iloc[index], protocol.mask_rule, protocol.mask_size)
        if mask.any():
            above = anomaly_map(maps[index], (mask.shape[0], mask.shape[1]), protocol.smoothing_sigma) > threshold
            dice[index] = 2 * (mask & above).sum() / (mask.sum() + above.sum())
            share[index] = mask.mean()
    return dice, share


def choose_by_dice(
    manifest: pd.DataFrame, dice: Floats, lesion_share: Floats, image_scores: Floats
) -> dict[str, list[int]]:
    """Rows per group, each row in one group only; of equal Dice the larger lesion comes first.

    A group shows each subject once where the manifest names subjects.
    """
    known = np.flatnonzero(~np.isnan(dice))
    rising = known[np.lexsort((known, -lesion_share[known], dice[known]))]
    falling = known[np.lexsort((known, -lesion_share[known], -dice[known]))]
    middle = np.median(dice[known]) if len(known) else 0.0
    central = known[np.lexsort((known, np.abs(dice[known] - middle)))]
    wanted = {BEST: falling, WORST: rising, MEDIAN: central, FALSE_ALARM: _normal(manifest, image_scores)}
    groups = _without_repetition(manifest, wanted)
    return {name: groups[name] for name in (BEST, MEDIAN, WORST, FALSE_ALARM)}


def choose_by_score(manifest: pd.DataFrame, image_scores: Floats) -> dict[str, list[int]]:
    """Rows per group for a data set without masks: anomalies found and missed, and false alarms."""
    anomalous = np.flatnonzero((manifest["label"] == "anomalous").to_numpy())
    rising = anomalous[np.argsort(image_scores[anomalous], kind="stable")]
    wanted = {FOUND: rising[::-1], MISSED: rising, FALSE_ALARM: _normal(manifest, image_scores)}
    return _without_repetition(manifest, wanted)


def _normal(manifest: pd.DataFrame, image_scores: Floats) -> npt.NDArray[np.int64]:
    """Normal rows, the highest score first."""
    normal = np.flatnonzero((manifest["label"] == "normal").to_numpy())
    return normal[np.argsort(-image_scores[normal], kind="stable")]


def _without_repetition(manifest: pd.DataFrame, wanted: dict[str, npt.NDArray[np.int64]]) -> dict[str, list[int]]:
    used: set[int] = set()
    groups: dict[str, list[int]] = {}
    for name, rows in wanted.items():
        groups[name] = _one_per_subject(manifest, (int(row) for row in rows if row not in used))
        used |= set(groups[name])
    return groups


def _one_per_subject(manifest: pd.DataFrame, rows: Iterable[int]) -> list[int]:
    chosen: dict[str, int] = {}
    for row in rows:
        if len(chosen) == PER_GROUP:
            break
        chosen.setdefault(str(manifest["subject"].iloc[row]) or f"image {row}", row)
    return list(chosen.values())
