"""Lesions found and false regions per scan: free-response ROC (FROC), over thresholds and subjects."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dinodp.metrics.counts import Floats
from dinodp.metrics.definitions import at_false_regions, metrics_of
from dinodp.options.protocol import FALSE_REGIONS

N_THRESHOLDS = 64
SHARE_ABOVE = (1e-6, 0.5)  # of the pixels: where the highest and the lowest threshold lie
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

    def add(
        self, scores: Map, lesion: Flags, subject: int = 0, counted: Flags | None = None,
        parts: Sequence[tuple[slice, ...]] | None = None,
    ) -> None:  # fmt: skip
        """Count one scan: ``scores`` and ``lesion`` [H, W] or [slice, H, W]; regions among the ``counted`` pixels.

        ``parts``: the places of the lesions where they are boxes, which may overlap; None: the mask's components.
        """
        structure = np.ones((3,) * scores.ndim, dtype=np.int8)
        counts = scores if counted is None else np.where(counted | lesion, scores, -np.inf)
        highest = _highest(counts, lesion, structure) if parts is None else [counts[part].max() for part in parts]
        n_lesions = len(highest)
        self.hits[subject] += (np.asarray(highest, dtype=np.float64).reshape(-1, 1) > self.thresholds).sum(axis=0)
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
        """The metrics of lesions, by name; none without a lesion."""
        return {name: float(value) for name, value in self._metrics(np.ones(len(self.lesions))).items()}

    def replicates(self, weights: Floats) -> dict[str, Floats]:
        """The same [resample] for resamples in which the subjects occur ``weights`` [resample, subject] times."""
        return self._metrics(weights) if len(weights) else {}

    def _metrics(self, weights: Floats) -> dict[str, Floats]:
        if not self.lesions.any():
            return {}
        false, found = self._weighted(weights)
        return {
            at_false_regions(name, limit): values
            for name, metric in metrics_of("lesions").items()
            for limit, values in zip(FALSE_REGIONS, np.moveaxis(metric.compute(false, found), -1, 0), strict=True)
        }

    def _weighted(self, weights: Floats) -> tuple[Floats, Floats]:
        """False regions per scan, and sensitivity, [..., threshold]."""
        scans, lesions = (weights @ self.scans)[..., None], (weights @ self.lesions)[..., None]
        hits = weights @ self.hits
        found = np.divide(hits, lesions, out=np.full_like(hits, np.nan), where=lesions > 0)
        return (weights @ self.false_regions) / np.maximum(scans, 1), found


def _highest(scores: Map, lesion: Flags, structure: npt.NDArray[np.int8]) -> Sequence[float]:
    """The highest score of each lesion of a mask."""
    lesions, count = ndimage.label(lesion, structure=structure)
    found: Sequence[float] = ndimage.maximum(scores, lesions, np.arange(1, count + 1)) if count else []
    return found


def _false_regions(scores: Map, lesion: Flags, structure: npt.NDArray[np.int8], thresholds: Floats) -> Iterator[int]:
    for threshold in thresholds:
        above = scores > threshold
        if not above.any():
            yield 0
            continue
        regions, count = ndimage.label(above, structure=structure)
        touching = np.unique(regions[lesion & above])
        yield int(count - len(touching))
