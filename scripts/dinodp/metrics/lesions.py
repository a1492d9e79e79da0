"""Lesions found and false regions per scan: free-response ROC (FROC), over thresholds and subjects."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dinodp.metrics.counts import Floats

N_THRESHOLDS = 64
SHARE_ABOVE = (1e-6, 0.5)  # of the pixels: where the highest and the lowest threshold lie
FALSE_REGIONS = (1, 2, 4)  # per scan
Map = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


def region_thresholds(scores: Map) -> Floats:
    """Thresholds [64], falling: quantiles of the scores, spaced geometrically by the share of them that lies above."""
    shares = np.geomspace(*SHARE_ABOVE, N_THRESHOLDS)
    return np.quantile(np.asarray(scores, dtype=np.float64).ravel(), 1 - shares)


class LesionCounter:
    """Lesions hit, and regions that touch none, at each threshold [threshold, falling], of each of ``n_subjects``.

    A *region* is a connected component of the pixels above the threshold, a *lesion* one of the mask; pixels that touch
    at a corner are connected (8 neighbours in an image, 26 in a volume). A lesion is *hit* when a region overlaps it in
    at least one pixel. A region that overlaps none is *false*.
    """

    def __init__(self, thresholds: Floats, n_subjects: int) -> None:
        self.thresholds = np.asarray(thresholds, dtype=np.float64)
        self.hits, self.false_regions = np.zeros((2, n_subjects, len(self.thresholds)))
        self.lesions, self.scans = np.zeros((2, n_subjects))

    def add(self, scores: Map, lesion: Flags, subject: int = 0, counted: Flags | None = None) -> None:
        """Count one scan: ``scores`` and ``lesion`` [H, W] or [slice, H, W]; regions among the ``counted`` pixels."""
        structure = np.ones((3,) * scores.ndim, dtype=np.int8)
        lesions, n_lesions = ndimage.label(lesion, structure=structure)
        counts = scores if counted is None else np.where(counted | lesion, scores, -np.inf)
        highest = ndimage.maximum(counts, lesions, np.arange(1, n_lesions + 1)) if n_lesions else np.zeros(0)
        self.hits[subject] += (np.asarray(highest)[:, None] > self.thresholds).sum(axis=0)
        self.false_regions[subject] += list(_false_regions(counts, lesion, structure, self.thresholds))
        self.lesions[subject] += n_lesions
        self.scans[subject] += 1

    def curve(self) -> dict[str, Floats]:
        """``threshold``, ``false_regions`` per scan and ``sensitivity``, each [threshold]; none without a lesion."""
        if not self.lesions.any():
            return {}
        false, found = self._weighted(np.ones(len(self.lesions)))
        return {"threshold": self.thresholds, "false_regions": false, "sensitivity": found}

    def values(self) -> dict[str, float]:
        """Sensitivity at each of `FALSE_REGIONS`, by name; none without a lesion."""
        if not self.lesions.any():
            return {}
        false, found = self._weighted(np.ones(len(self.lesions)))
        return {lesion_metric(limit): sensitivity_at(limit, false, found) for limit in FALSE_REGIONS}

    def replicates(self, weights: Floats) -> dict[str, Floats]:
        """The same [resample] for resamples in which the subjects occur ``weights`` [resample, subject] times."""
        if not self.lesions.any():
            return {}
        false, found = self._weighted(weights)
        return {
            lesion_metric(limit): np.array([sensitivity_at(limit, *pair) for pair in zip(false, found, strict=True)])
            for limit in FALSE_REGIONS
        }

    def _weighted(self, weights: Floats) -> tuple[Floats, Floats]:
        """False regions per scan, and sensitivity, [..., threshold]."""
        scans, lesions = (weights @ self.scans)[..., None], (weights @ self.lesions)[..., None]
        hits = weights @ self.hits
        found = np.divide(hits, lesions, out=np.full_like(hits, np.nan), where=lesions > 0)
        return (weights @ self.false_regions) / np.maximum(scans, 1), found


def lesion_metric(limit: int) -> str:
    """The name of the sensitivity at so many false regions per scan."""
    return f"lesion_sensitivity_{limit}"


def sensitivity_at(limit: float, false_regions: Floats, sensitivity: Floats) -> float:
    """The sensitivity at the lowest threshold before which, from the highest on, no more than ``limit`` false regions
    occur per scan; 0 where the first threshold has more. Regions merge as a threshold falls, so their number may fall
    again: that part does not count.
    """
    above = np.flatnonzero(false_regions > limit)
    last = (above[0] if len(above) else len(false_regions)) - 1
    return float(sensitivity[last]) if last >= 0 else 0.0


def _false_regions(scores: Map, lesion: Flags, structure: npt.NDArray[np.int8], thresholds: Floats) -> Iterator[int]:
    for threshold in thresholds:
        above = scores > threshold
        if not above.any():
            yield 0
            continue
        regions, count = ndimage.label(above, structure=structure)
        touching = np.unique(regions[lesion & above])
        yield int(count - len(touching))
