"""Score the slices of a scan, and make its anomaly map."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch.nn import functional

from dinodp.embeddings.embedder import Embedder
from dinodp.errors import InputError
from dinodp.families.base import FittedModel
from dinodp.families.stages import model_of, patch_scores, require_sound_state
from dinodp.images import image_score
from dinodp.jobs.devices import device_of_models
from dinodp.scans.detecting.canvas import enlarge
from dinodp.scans.detecting.preparation import Preparation, PreparedScan
from dinodp.scans.detecting.settings import Settings
from dinodp.scans.detecting.tail import Tail
from dinodp.scans.reading.scan import Scan

Map = npt.NDArray[np.float32]
NO_ROWS = pd.DataFrame()  # own scans have no manifest


@dataclass(frozen=True)
class ScoredScan:
    """``patch_maps`` float32 [chosen slice, row, col]; of an image there is one."""

    prepared: PreparedScan
    patch_maps: Map
    patch_foreground: npt.NDArray[np.bool_]  # in the shape of `patch_maps`; a volume's other patches are black
    anomaly_map: Map  # [slice, H, W]; `outside` where nothing was scored
    scored: npt.NDArray[np.bool_]  # [slice, H, W]

    @property
    def scan(self) -> Scan:
        """What was scored."""
        return self.prepared.scan

    @property
    def chosen(self) -> Sequence[int]:
        """Indices of the slices that were scored themselves."""
        return self.prepared.chosen

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

    def tail_map(self, tail: Tail) -> Map:
        """How rare each score is among healthy voxels [slice, H, W], above 0 to 1; 1 where nothing was scored."""
        return np.where(self.scored, tail.probability(self.anomaly_map), np.float32(1))

    @property
    def calibration_voxels(self) -> Map:
        """Scores [n] of the foreground of the slices that were scored themselves, not interpolated."""
        chosen = list(self.chosen)
        values: Map = self.anomaly_map[chosen][self.scored[chosen]]
        return values


@dataclass
class Scorer:
    """Preparation, backbone and fitted model behind one function."""

    preparation: Preparation
    embedder: Embedder
    model: FittedModel

    @classmethod
    def of(cls, preparation: Preparation, embedder: Embedder, state: Mapping[str, Any]) -> "Scorer":
        """With the model that a state of `fit_state` describes. Raises InputError for a state that none can have."""
        options, seed = preparation.settings.model, preparation.settings.seed
        require_sound_state(options, state, embedder.backbone.dim)
        model = model_of(options, state, NoEmbeddings(), seed=seed, device=str(embedder.device))
        return cls(preparation, embedder, model)

    @property
    def settings(self) -> Settings:
        """The settings of the fit."""
        return self.preparation.settings

    def score(self, scan: Scan, every: int = 1, *, force: bool = False) -> ScoredScan:
        """Score every ``every``-th slice of a scan; between them the map is interpolated linearly.

        Raises InputError when the scan is not like the healthy ones; ``force`` allows other values, spacing and size.
        """
        prepared = self.preparation.of_new(scan, every, force=force)
        return self.score_tokens(prepared, seen_tokens(self.embedder, prepared, self.settings))

    def score_tokens(self, prepared: PreparedScan, tokens: Iterable[torch.Tensor]) -> ScoredScan:
        """As `score`, from what the model sees [B, row, col, D] of the chosen slices, batch by batch.

        Raises InputError when none of the foreground is seen, or a score is not finite.
        """
        scan, chosen = prepared.scan, prepared.chosen
        maps, inside = self._patch_maps(prepared, tokens)
        if not np.isfinite(maps).all():
            raise InputError(f"{scan.path}: the model gives it a score that is not finite (NaN or infinity).")
        n_slices, height, width = scan.foreground.shape
        positions = prepared.placement.positions((height, width), self.embedder.backbone)
        enlarged = np.maximum(enlarge(maps, positions, chosen, n_slices), maps.min())  # rounding goes below
        scored = scan.foreground & prepared.placement.shown((height, width))
        scored[: chosen[0]] = scored[chosen[-1] + 1 :] = False
        if not scored.any():
            raise InputError(f"{scan.path}: nothing of its foreground lies within the field of view of the model.")
        found = ScoredScan(prepared, maps, inside, enlarged, scored)
        enlarged[~scored] = found.outside
        return found

    def _patch_maps(
        self, prepared: PreparedScan, tokens: Iterable[torch.Tensor]
    ) -> tuple[Map, npt.NDArray[np.bool_]]:
        """Patch scores [chosen slice, row, col], and which patches are foreground, in the same shape."""
        maps: list[Map] = []
        inside, leaves_out = np.zeros(0, dtype=np.bool_), self.settings.model.background == "leave_out"
        for batch in tokens:
            if not maps:
                inside = prepared.patch_foreground(self.embedder.backbone, tuple(batch.shape[1:3]))
            first = sum(map(len, maps))
            shown = torch.from_numpy(inside[first : first + len(batch)]) if leaves_out else None
            maps.append(patch_scores(self.model, batch, NO_ROWS, shown)[self.settings.score_name])
        return np.concatenate(maps), inside


class NoEmbeddings:
    """What stands for the training split, which own scans do not keep: their states hold all that a model needs."""

    n_images = n_patches = dim = 0

    def count(self, images: Sequence[int]) -> int:
        """There are none."""
        return 0

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """There is nothing to read."""
        raise AssertionError("the state of a model of own scans must hold all that it needs")

    foreground = read


def seen_tokens(embedder: Embedder, prepared: PreparedScan, settings: Settings) -> Iterator[torch.Tensor]:
    """What the model sees, float32 [B, row, col, D], of the chosen slices, batch by batch: unit vectors if it says.

    They are where models compute.
    """
    device = device_of_models(str(embedder.device))
    for tokens in embedder.embed(prepared.pictures()):
        yield (functional.normalize(tokens, dim=-1) if settings.model.normalise else tokens).to(device)


def _highest(scores: Map) -> float:
    return float(image_score(scores.reshape(1, 1, -1))[0])
