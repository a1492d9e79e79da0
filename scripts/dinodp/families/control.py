"""Controls that bound every metric from below and above."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from dinodp.families.base import FitTask, Fitted, Source
from dinodp.images import MASK_RULES, read_lesion
from dinodp.store import Maps


class ControlFamily:
    """Controls that bound every metric: ``random`` scores from a seed and the ``oracle`` that knows the mask.

    The oracle has one map for each mask rule (``oracle/gt0``), so that it is a bound under all of them.
    """

    def __init__(self, scores: Sequence[str], seed: int) -> None:
        self.seed = seed
        known = [f"oracle/{rule}" for rule in MASK_RULES]
        self.names = [name for score in scores for name in (known if score == "oracle" else [score])]

    @staticmethod
    def fit(options: Mapping[str, Any], task: FitTask) -> Fitted:
        """Nothing to fit."""
        return Fitted({}, {}, None)

    @classmethod
    def load(cls, config: Mapping[str, Any], state: Mapping[str, Any], train: Source, device: str) -> "ControlFamily":
        """A control needs its seed only."""
        return cls(config["scores"], int(config["seed"]))

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
    if not row.mask:
        return np.full(shape, float(row.label == "anomalous"), dtype=np.float32)
    mask = torch.from_numpy(read_lesion(row.mask, rule)).float()
    return torch.nn.functional.adaptive_avg_pool2d(mask[None, None], shape)[0, 0].numpy()
