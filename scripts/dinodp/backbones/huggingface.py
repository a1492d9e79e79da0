"""Backbones in Hugging Face format, by a name on the hub or from a directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

from dinodp.backbones.base import Backbone, EmbeddingOptions, torch_device
from dinodp.errors import InputError
from dinodp.options.base import option

MODEL_TYPES = ("dinov2", "dinov2_with_registers", "dinov3_vit", "vit")
WEIGHTS = ("*.safetensors", "*.bin")


class HuggingFaceOptions(EmbeddingOptions):
    """A frozen vision transformer: DINOv2, DINOv2 with registers, DINOv3 or ViT."""

    IS_FALLBACK: ClassVar[bool] = True

    revision: str | None = option(
        None, "Commit of the hub's repository, so that weights cannot change unseen; a directory has none."
    )
    layers: tuple[int, ...] = option(
        (-1,),
        "Blocks whose tokens are used, from 1, or from the end with -1 the last. Several are normalised one by one and "
        "concatenated.",
        min_length=1,
    )
    dtype: Literal["float32", "float16", "bfloat16"] = option("float32", "Arithmetic of the backbone.")

    @classmethod
    def serves(cls, backbone: str) -> bool:
        """Whatever no other family does."""
        return True

    def check(self, where: str) -> None:
        """A directory must have configuration, weights and the layers."""
        directory = Path(self.backbone).expanduser()
        if not directory.is_dir():
            return
        require_files(directory)
        blocks = read_json(directory / "config.json").get("num_hidden_layers")
        if isinstance(blocks, int):
            try:
                block_numbers(self.layers, blocks, self.backbone)
            except InputError as error:
                raise InputError(f"{where}.layers: {error}") from None

    def load(self, device: str) -> Backbone:
        """Its weights, from the directory, the hub's cache or the hub."""
        return self._load(device, download=True)

    def load_local(self, device: str) -> Backbone:
        """Its weights, from the directory or the hub's cache."""
        return self._load(device, download=False)

    def _load(self, device: str, *, download: bool) -> Backbone:
        from dinodp.backbones.vision_transformer import HuggingFaceBackbone  # transformers takes seconds to import

        return HuggingFaceBackbone(
            self.backbone,
            revision=self.revision,
            resolution=self.resolution,
            layers=self.layers,
            dtype=self.dtype,
            device=torch_device(device),
            square=self.square,
            download=download,
        )


def read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The file {file} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"The file {file} holds no JSON object.")
    return content


def block_numbers(layers: tuple[int, ...], n_blocks: int, name: str) -> tuple[int, ...]:
    """Turn -1 (last), -2, ... and 1, 2, ... into block numbers from 1."""
    if not layers:
        raise InputError(f"No layer of {name} was asked for: use -1 for the last.")
    for layer in layers:
        if layer == 0 or abs(layer) > n_blocks:
            raise InputError(f"Unknown layer {layer} of {name}: choose 1 to {n_blocks}, or -1 (last) to -{n_blocks}.")
    return tuple(layer if layer > 0 else n_blocks + 1 + layer for layer in layers)


def require_files(directory: Path) -> None:
    if not (directory / "config.json").is_file():
        raise InputError(f"The backbone directory {directory} has no config.json: it is not in Hugging Face format.")
    if not weight_files(directory):
        raise InputError(f"The backbone directory {directory} has no weights ({' or '.join(WEIGHTS)}).")


def weight_files(directory: Path) -> list[Path]:
    """Files that transformers would load: safetensors where there are any, else pickled weights."""
    return next((files for files in (sorted(directory.glob(pattern)) for pattern in WEIGHTS) if files), [])
