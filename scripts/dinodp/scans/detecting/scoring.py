"""Score the slices of a scan, and make its anomaly map."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dinodp.errors import InputError
from dinodp.families.scores import patch_scores
from dinodp.images import image_score
from dinodp.models import DirichletProcessMixture, MemoryBank
from dinodp.scans.detecting.canvas import Placement, enlarge, patches_with, pictures, slice_choice
from dinodp.scans.detecting.embedding import Embedder
from dinodp.scans.detecting.healthy import HealthyRange, Measures
from dinodp.scans.detecting.settings import Settings
from dinodp.scans.reading.scan import Scan

Map = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ScoredScan:
    """``patch_maps`` float32 [chosen slice, row, col], or one per scan of an image; ``chosen`` the slices' indices."""

    scan: Scan
    measures: Measures
    chosen: Sequence[int]
    patch_maps: Map
    patch_foreground: npt.NDArray[np.bool_]  # in the shape of `patch_maps`; a volume's other patches are black
    anomaly_map: Map  # [slice, H, W]; `outside` where nothing was scored
    scored: npt.NDArray[np.bool_]  # [slice, H, W]

    @property
    def outside(self) -> float:
        """What the anomaly map holds where nothing was scored: zero, or what lies just below a lowest score that is
        not above zero."""
        return min(0.0, float(np.nextafter(self.patch_maps.min(), np.float32(-np.inf))))

    @property
    def slice_scores(self) -> Map:
        """Mean of the highest 1 % of the patch scores of each chosen slice, its foreground only [chosen]."""
        pairs = zip(self.patch_maps, self.patch_foreground, strict=True)
        return np.array([_highest(scores[inside]) for scores, inside in pairs], dtype=np.float32)

    @property
    def score(self) -> float:
        """Mean of the highest 1 % of all patch scores of the scan, its foreground only."""
        return _highest(self.patch_maps[self.patch_foreground])

    @property
    def calibration_voxels(self) -> Map:
        """Scores [n] of the foreground of the slices that were scored themselves, not interpolated."""
        chosen = list(self.chosen)
        values: Map = self.anomaly_map[chosen][self.scored[chosen]]
        return values


@dataclass
class Scorer:
    """Backbone and fitted model behind one function."""

    settings: Settings
    healthy: HealthyRange
    embedder: Embedder
    model: DirichletProcessMixture | MemoryBank

    def score(self, scan: Scan, every: int = 1, *, force: bool = False) -> ScoredScan:
        """Score every ``every``-th slice of a scan; between them the map is interpolated linearly.

        Raises InputError when the scan is not like the healthy ones; ``force`` allows other values, spacing and size.
        """
        measures = Measures.of(scan)
        self.healthy.require_same_kind(scan, measures)
        if not force:
            self.healthy.require_similar(scan, measures)
        chosen = chosen_slices(scan, self.healthy, self.settings, every)
        window = window_of(measures, self.healthy, self.settings)
        shown = pictures(scan, chosen, Placement.of(scan, self.healthy), window)
        return self.score_tokens(scan, measures, chosen, self.embedder.embed(shown))

    def score_tokens(
        self, scan: Scan, measures: Measures, chosen: Sequence[int], tokens: Iterable[torch.Tensor]
    ) -> ScoredScan:
        """As `score`, from the unit embeddings [B, row, col, D] of the chosen slices, batch by batch.

        Raises InputError when none of the foreground is seen.
        """
        name = self.settings.score_name
        maps = np.concatenate([patch_scores(self.model, batch, [name])[name] for batch in tokens])
        n_slices, height, width = scan.foreground.shape
        placement = Placement.of(scan, self.healthy)
        positions = placement.positions((height, width), self.embedder.backbone)
        enlarged = np.maximum(enlarge(maps, positions, chosen, n_slices), maps.min())  # rounding goes below
        scored = scan.foreground & placement.shown((height, width))
        scored[: chosen[0]] = scored[chosen[-1] + 1 :] = False
        if not scored.any():
            raise InputError(f"{scan.path}: nothing of its foreground lies within the field of view of the model.")
        inside = patches_with(scored[list(chosen)], positions, maps.shape[1:])
        inside[~inside.any(axis=(1, 2))] = True  # nothing of the slice is seen, as --force may have it
        found = ScoredScan(scan, measures, chosen, maps, inside, enlarged, scored)
        enlarged[~scored] = found.outside
        return found


def _highest(scores: Map) -> float:
    return float(image_score(scores.reshape(1, 1, -1))[0])


def chosen_slices(scan: Scan, healthy: HealthyRange, settings: Settings, step: int) -> list[int]:
    """Slices to be embedded: those with enough foreground, every ``step``-th."""
    if scan.spacing is None:
        return [0]
    canvas_area = healthy.side**2 / (scan.spacing[1] * scan.spacing[2])
    return slice_choice(scan.foreground, settings.min_foreground, step, canvas_area)


def window_of(measures: Measures, healthy: HealthyRange, settings: Settings) -> tuple[float, float]:
    """Values that become black and white: chosen ones; 0 to 255 of 8-bit images; the ends over all healthy 16-bit
    images; else the percentiles of the volume itself."""
    if settings.window is not None:
        return settings.window
    if measures.kind == "volume":
        return measures.low, measures.high
    return (0.0, 255.0) if measures.depth == 8 else (healthy.low[0], healthy.high[1])
