"""Backbones in Hugging Face format, by a name on the hub or from a directory."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from dinodp.backbones.base import Backbone, EmbeddingOptions, torch_device
from dinodp.backbones.directory import block_numbers, read_json, require_files
from dinodp.backbones.engines import Dtype, Engine, fastest_engine
from dinodp.errors import InputError
from dinodp.options.base import option
from dinodp.options.choices import Interpolation


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
    dtype: Dtype = option("float32", "Arithmetic of the backbone.")
    engine: Engine = option(
        "torch", "What computes it: PyTorch, or OpenVINO (an extra; on CPUs, in float32 or, where they can, bfloat16)."
    )
    interpolation: Interpolation = option("bicubic", "How Pillow resizes the images, antialiased.")

    @classmethod
    def serves(cls, backbone: str) -> bool:
        """Whatever no other family does."""
        return True

    def check(self, where: str) -> None:
        """A directory must have configuration, weights and the layers; OpenVINO has no float16."""
        if self.engine == "openvino" and self.dtype == "float16":
            raise InputError(f"{where}.dtype: the engine openvino computes float32 or bfloat16 on a CPU, not float16.")
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

    @classmethod
    def fastest(cls, device: str) -> dict[str, str]:
        """OpenVINO on a CPU, if it is installed."""
        return {"engine": fastest_engine(device)}

    def weights(self) -> tuple[str, str | None] | None:
        """Those of a name that is no directory."""
        return None if Path(self.backbone).expanduser().is_dir() else (self.backbone, self.revision)

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
            engine=self.engine,
            device=torch_device(device),
            square=self.square,
            interpolation=self.interpolation,
            download=download,
        )
