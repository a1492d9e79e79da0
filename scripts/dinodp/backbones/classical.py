"""The classical descriptor: no download, no weights, one layer."""

from __future__ import annotations

from typing import Literal

from dinodp.backbones.base import Backbone, EmbeddingOptions, torch_device
from dinodp.options.base import option


class ClassicalOptions(EmbeddingOptions):
    """A hand-made descriptor of patches of 14 pixels: a floor for learned backbones."""

    resolution: int = option(448, "Short side of the resized image.", unit="pixels", ge=14)
    revision: None = option(None, "It has none.")
    layers: tuple[Literal[-1]] = option((-1,), "It has one.")
    dtype: Literal["float32"] = option("float32", "Arithmetic.")

    @classmethod
    def serves(cls, backbone: str) -> bool:
        """Only its name."""
        return backbone == "classical"

    def load(self, device: str) -> Backbone:
        """The descriptor on a device."""
        from dinodp.backbones.classical_descriptor import ClassicalBackbone

        return ClassicalBackbone(resolution=self.resolution, device=torch_device(device), square=self.square)
