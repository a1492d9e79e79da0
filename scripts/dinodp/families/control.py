"""Controls that bound every metric from below and above."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from dinodp.families.base import FitTask, Fitted, ModelOptions, Source
from dinodp.images import MASK_RULES, read_lesion
from dinodp.jobs.origin import require_unchanged

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp.store import Maps


class ControlOptions(ModelOptions):
    """Controls that bound every metric: ``random`` scores from a seed and the ``oracle`` that knows the mask."""

    SCORES: ClassVar[tuple[str, ...]] = ("random", "oracle")
    IS_CONTROL: ClassVar[bool] = True
    FOR_OWN_SCANS: ClassVar[bool] = False

    family: Literal["control"] = "control"

    @property
    def is_random(self) -> bool:
        """The oracle is not."""
        return self.scores != ("oracle",)

    def fit(self, task: FitTask) -> Fitted:
        """Nothing to fit."""
        return Fitted({}, {}, None)

    def load(self, state: Mapping[str, Any], train: Source, *, seed: int, device: str) -> Control:
        """A control needs its seed only."""
        return Control(self.scores, seed)


class Control:
    """Scores that need no embeddings. The oracle has one map for each mask rule (``oracle/gt0``): a bound under all."""

    def __init__(self, scores: Sequence[str], seed: int) -> None:
        self.seed = seed
        known = [f"oracle/{rule}" for rule in MASK_RULES]
        self.names: Sequence[str] = [name for score in scores for name in (known if score == "oracle" else [score])]

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Uniform noise that depends on seed and image, or the share of each patch that the mask covers."""
        shape = (int(tokens.shape[1]), int(tokens.shape[2]))
        return {name: np.stack([self._map(name, row, shape) for row in rows.itertuples()]) for name in self.names}

    def _map(self, name: str, row: Any, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        kind, _, rule = name.partition("/")
        return _mask_share(row, rule, shape) if kind == "oracle" else self._random(row, shape)

    def _random(self, row: Any, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        digest = hashlib.sha256(f"{self.seed} {row.image_sha256}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        return generator.random(shape, dtype=np.float32)


def _mask_share(row: Any, rule: str, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    import torch

    if not row.mask:
        return np.full(shape, float(row.label == "anomalous"), dtype=np.float32)
    require_unchanged(row.mask, row.mask_sha256)
    mask = torch.from_numpy(read_lesion(row.mask, rule)).float()
    return torch.nn.functional.adaptive_avg_pool2d(mask[None, None], shape)[0, 0].numpy()
