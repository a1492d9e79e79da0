"""A small memory bank per layer; their maps, each on the scale of healthy values, are averaged (as RD4AD adds maps)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from dinodp.errors import InputError
from dinodp.families.base import FitTask, Fitted, ModelOptions, Source
from dinodp.jobs.logs import logger
from dinodp.options.base import option

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp.models import MemoryBank
    from dinodp.store import Maps


class LayerFusionOptions(ModelOptions):
    """One memory bank per layer of the embedding; the mean of their distances, each in deviations of healthy values."""

    SCORES: ClassVar[tuple[str, ...]] = ("fused",)
    FOR_OWN_SCANS: ClassVar[bool] = False  # it needs validation images to standardise by

    family: Literal["layer_fusion"] = "layer_fusion"
    n_layers: int = option(
        2, "How many layers the embedding joins (its `layers`): it is cut into so many equal parts.", ge=1
    )
    coreset_fraction: float = option(
        0.01, "Share of the training embeddings that the bank of each layer keeps (greedy coreset).", gt=0, le=1
    )

    def fitting_mib(self, train_mib: float) -> float:
        """All training embeddings as float32, and once more to join them."""
        return super().fitting_mib(train_mib) + 4 * train_mib

    def fit(self, task: FitTask) -> Fitted:
        """Coresets [layer, n, d], and mean and deviation of the validation images' distances [layer].

        Raises InputError for an embedding that cannot be cut, without validation images, and for equal distances.
        """
        import torch

        from dinodp.families.features import chunks
        from dinodp.models.k_center import coreset

        if not task.valid.n_images:
            raise InputError("The family layer_fusion needs normal validation images: it standardises by them.")
        layers = self._cut(torch.cat(list(chunks(task.train))))
        count = max(1, int(layers.shape[1] * self.coreset_fraction))
        kept = torch.stack([x[torch.from_numpy(coreset(x, count, task.generator))] for x in layers])
        banks = _banks(kept, task.device)
        found = torch.cat([self.distances(banks, x) for x in chunks(task.valid)], dim=1).double()
        mean, deviation = found.mean(1), found.std(1)
        if not (deviation > 0).all():
            raise InputError("The validation images all have one distance in a layer: nothing to standardise by.")
        logger.info("Layer fusion: %d layers, %d embeddings each.", len(kept), count)
        scale = {"mean": mean.cpu().numpy(), "deviation": deviation.cpu().numpy()}
        return Fitted({"banks": kept.numpy(), **scale}, {}, None)

    def _cut(self, x: torch.Tensor) -> torch.Tensor:
        """The layers [layer, n, d] of embeddings [n, D]. Raises InputError where D is no multiple of their number."""
        if x.shape[1] % self.n_layers:
            raise InputError(
                f"Embeddings of {x.shape[1]} numbers cannot be cut into {self.n_layers} layers (n_layers): it must be "
                "the number of `layers` of the embedding, without pca_dims or an appended position."
            )
        layers: torch.Tensor = x.unflatten(1, (self.n_layers, -1)).transpose(0, 1).contiguous()
        return layers

    def distances(self, banks: Sequence[MemoryBank], x: torch.Tensor) -> torch.Tensor:
        """1 - cosine similarity [layer, n] of embeddings [n, D] to the nearest of each layer."""
        import torch

        return torch.stack([bank.distances(part) for bank, part in zip(banks, self._cut(x), strict=True)])

    def load(self, state: Mapping[str, Any], train: Source, *, seed: int, device: str) -> LayerFusion:
        """The banks of a model file."""
        return LayerFusion(self, state, device)


class LayerFusion:
    """A bank [n, d] per layer, with mean and deviation of what healthy images have."""

    def __init__(self, options: LayerFusionOptions, state: Mapping[str, Any], device: str) -> None:
        import torch

        self.names: Sequence[str] = options.scores
        self._options = options
        self._banks = _banks(torch.as_tensor(np.array(state["banks"])), device)
        self._scale = [torch.as_tensor(np.array(state[name])).to(device)[:, None] for name in ("mean", "deviation")]

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """Mean over layers [B, row, col] of the distances in deviations from their healthy mean."""
        from dinodp.families.scores import score_maps

        mean, deviation = self._scale
        found = self._options.distances(self._banks, tokens.flatten(0, 2)).to(mean)
        return score_maps({"fused": ((found - mean) / deviation).mean(0)}, tokens, self.names)


def _banks(kept: torch.Tensor, device: str) -> list[MemoryBank]:
    from dinodp.models import MemoryBank

    return [MemoryBank(device=device).fit(part) for part in kept]
