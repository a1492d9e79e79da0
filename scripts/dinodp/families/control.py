"""Controls that bound every metric from below and above."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from dinodp.families.base import FitTask, Fitted, ModelOptions, Source
from dinodp.images import read_mask

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp.store import Maps


class ControlOptions(ModelOptions):
    """Controls that bound every metric: ``random`` scores from a seed and the ``oracle`` that knows the mask."""

    SCORES: ClassVar[tuple[str, ...]] = ("random", "oracle")
    IS_CONTROL: ClassVar[bool] = True

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
    """Scores that need no embeddings."""

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self.names, self.seed = names, seed

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Uniform noise that depends on seed and image, or the share of each patch that the mask covers."""
        shape = (int(tokens.shape[1]), int(tokens.shape[2]))
        draw = {"random": self._random, "oracle": _mask_share}
        return {name: np.stack([draw[name](row, shape) for row in rows.itertuples()]) for name in self.names}

    def _random(self, row: Any, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        digest = hashlib.sha256(f"{self.seed} {row.image_sha256}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        return generator.random(shape, dtype=np.float32)


def _mask_share(row: Any, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    import torch

    if not row.mask:
        return np.full(shape, float(row.label == "anomalous"), dtype=np.float32)
    mask = torch.from_numpy(read_mask(row.mask) > 0).float()
    return torch.nn.functional.adaptive_avg_pool2d(mask[None, None], shape)[0, 0].numpy()
