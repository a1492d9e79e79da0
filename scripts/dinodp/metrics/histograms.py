"""Score histograms of normal and anomalous pixels: all that the pixel metrics need, in fixed memory.

Upsampling is an average of patch scores, so the range of the pixels is known before the first map is made.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dinodp.errors import InputError
from dinodp.metrics.counts import CumulativeCounts, Floats

N_BINS = 2**18
EIGHT_CONNECTED = np.ones((3, 3), dtype=np.int8)

Map = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ScoreBins:
    """Bins that are equal in asinh((score - centre) / scale): narrow where scores are dense, wider in heavy tails."""

    centre: float
    scale: float
    first: float
    bins_per_unit: float

    @classmethod
    def of(cls, patch_maps: Map) -> Self:
        """Bins for scores of this distribution. Raises InputError for none or for values that are not finite."""
        values = np.asarray(patch_maps, dtype=np.float64).ravel()
        if not len(values) or not np.isfinite(values).all():
            raise InputError("Patch scores must be finite, and there must be at least one.")
        low, first_quartile, centre, third_quartile, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
        scale = (third_quartile - first_quartile) or (high - low) or 1.0
        first, last = np.arcsinh((low - centre) / scale), np.arcsinh((high - centre) / scale)
        return cls(float(centre), float(scale), float(first), float((N_BINS - 1) / ((last - first) or 1.0)))

    def index(self, scores: Map) -> npt.NDArray[np.int32]:
        """Bin of each score, int32, in increasing order of the score."""
        position = np.arcsinh((scores - np.float32(self.centre)) / np.float32(self.scale))
        position -= np.float32(self.first)
        position *= np.float32(self.bins_per_unit)
        bins: npt.NDArray[np.int32] = np.clip(position, 0, N_BINS - 1, out=position).astype(np.int32)
        return bins

    def lower_edge(self, index: npt.NDArray[np.int64] | Floats) -> Floats:
        """The smallest score of each bin; of a fraction, the score within the bin."""
        edges: Floats = self.centre + self.scale * np.sinh(self.first + index / self.bins_per_unit)
        return edges


class BinnedMap(NamedTuple):
    """Fine bins of the pixels of one map: of all that count, and of the anomalous ones.

    ``region_weight``: 1 / area of its region of each anomalous pixel; number of regions.
    """

    counted: npt.NDArray[np.int32]
    anomalous: npt.NDArray[np.int32]
    region_weight: Floats
    n_regions: int


@dataclass
class ScoreHistograms:
    """Counts per bin [N_BINS]: normal and anomalous pixels, and region weights (1 / area of the pixel's region).

    Histograms of parts of a test set over the same bins add up to those of the whole.
    """

    bins: ScoreBins
    normal: Floats
    anomalous: Floats
    region_weight: Floats
    n_regions: int = 0

    @classmethod
    def empty(cls, bins: ScoreBins) -> Self:
        """Histograms without a pixel."""
        return cls(bins, np.zeros(N_BINS), np.zeros(N_BINS), np.zeros(N_BINS))

    def update(
        self, scores: Map, anomalous: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_] | None = None
    ) -> BinnedMap:
        """Count the pixels of one map [H, W], float32, by whether they are ``anomalous`` [H, W]; return their bins.

        Of the normal pixels those that are ``counted`` [H, W] (None: all). Raises InputError when the shapes differ.
        """
        if scores.shape != anomalous.shape:
            raise InputError(f"An anomaly map of shape {scores.shape} has a mask of shape {anomalous.shape}.")
        index = self.bins.index(scores)
        pixels = index.ravel() if counted is None else index[counted | anomalous]
        self.normal += np.bincount(pixels, minlength=N_BINS)
        if not anomalous.any():
            return BinnedMap(pixels, pixels[:0], np.zeros(0), 0)
        inside = index[anomalous]
        counts = np.bincount(inside, minlength=N_BINS)
        self.normal -= counts
        self.anomalous += counts
        regions, n_regions = ndimage.label(anomalous, structure=EIGHT_CONNECTED)
        labels = regions[anomalous]
        areas = np.bincount(labels, minlength=n_regions + 1)
        weight = 1 / areas[labels]
        self.region_weight += np.bincount(inside, weights=weight, minlength=N_BINS)
        self.n_regions += n_regions
        return BinnedMap(pixels, inside, weight, int(n_regions))

    def __add__(self, other: Self) -> Self:
        """Histograms of both parts. Raises InputError when their bins differ."""
        if self.bins != other.bins:
            raise InputError("Histograms over different bins cannot be added.")
        return type(self)(
            self.bins,
            self.normal + other.normal,
            self.anomalous + other.anomalous,
            self.region_weight + other.region_weight,
            self.n_regions + other.n_regions,
        )

    @property
    def prevalence(self) -> float:
        """Share of anomalous pixels."""
        return float(self.anomalous.sum() / (self.anomalous.sum() + self.normal.sum()))

    def occupied(self) -> npt.NDArray[np.int64]:
        """Bins with a pixel, highest first."""
        return np.flatnonzero(self.normal + self.anomalous)[::-1]

    def cumulative(self) -> CumulativeCounts:
        """Counts at each occupied threshold, highest first."""
        occupied = self.occupied()
        counts = (self.normal, self.anomalous, self.region_weight)
        false_positives, true_positives, weight = (values[occupied].cumsum() for values in counts)
        return CumulativeCounts(false_positives, true_positives, weight, np.asarray(float(self.n_regions)), tied=True)
