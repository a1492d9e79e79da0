"""Vision transformers in Hugging Face format: DINOv2, DINOv2 with registers, DINOv3 and ViT.

Patch tokens agree with the original DINOv2 code (facebookresearch/dinov2): the final LayerNorm is applied to every
layer that is read, as `get_intermediate_layers(norm=True)` does, and position embeddings are resized as it does
(`DinoVisionTransformer.interpolate_pos_encoding`), which transformers does otherwise.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from dinodp.backbones.base import exact_convolutions, on_device, patch_grid, require_resolution
from dinodp.backbones.directory import MODEL_TYPES, block_numbers, read_json, require_files, weight_files
from dinodp.backbones.engines import OpenVinoTokens
from dinodp.backbones.hub import HUB_NAME, cached, fetch, quiet
from dinodp.backbones.preprocessing import preprocess
from dinodp.errors import InputError
from dinodp.jobs.logs import logger
from dinodp.options.choices import Interpolation

LEARNT_POSITIONS = ("dinov2", "dinov2_with_registers", "vit")  # DINOv3 rotates queries and keys: nothing to resize
ORIGINAL_OFFSET = 0.1  # patches, added to the new side by the original DINOv2 code before it takes the scale factor
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class HuggingFaceBackbone:
    """A frozen vision transformer, in `eval` mode; blocks above the highest layer that is read are dropped.

    ``revision`` is the commit for a hub name and ``local`` for a directory; `provenance` names the weights by SHA-256.
    Raises InputError when the model cannot be had, has no patch tokens, or has no such layer.
    """

    def __init__(
        self,
        name_or_path: str,
        *,
        revision: str | None = None,
        resolution: int,
        layers: tuple[int, ...],
        dtype: str,
        engine: str = "torch",
        device: torch.device,
        square: bool = False,
        interpolation: Interpolation = "bicubic",
        download: bool = True,
    ) -> None:
        directory, self.revision = locate(name_or_path, revision, download=download)
        config = _read_config(directory)
        blocks = block_numbers(layers, int(config["num_hidden_layers"]), name_or_path)
        model = _load_model(directory, dtype if engine == "torch" else "float32")  # OpenVINO converts by itself
        self.name, self.resolution, self.layers, self.square = name_or_path, resolution, layers, square
        self.interpolation = interpolation
        self.patch_size = int(model.config.patch_size)
        require_resolution(resolution, self.patch_size, name_or_path)
        self.dim = int(model.config.hidden_size) * len(layers)
        self.mean, self.std = _channel_statistics(directory)
        self.dtype, self.engine, self.device = dtype, engine, device
        self._weights_sha256 = weights_sha256(directory)
        self._n_prefix = 1 + int(getattr(model.config, "num_register_tokens", 0))  # CLS, then registers
        if model.config.model_type in LEARNT_POSITIONS:
            _resize_positions_as_original(model)
        tokens = LayerTokens(model.eval().requires_grad_(False).to(device), blocks)
        self._tokens = tokens if engine == "torch" else OpenVinoTokens(tokens, dtype, device)

    def prepare(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Resize, crop and standardise uint8 [H, W, 3] to float32 [3, H', W'], sides multiples of the patch size."""
        return preprocess(
            image,
            self.resolution,
            self.patch_size,
            self.mean,
            self.std,
            square=self.square,
            interpolation=self.interpolation,
        )

    @torch.inference_mode()
    def embed(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embed float [B, 3, H, W] to float32 [B, rows, columns, dim].

        Tokens of a single layer stay raw; those of several are scaled to unit length one by one, then concatenated.
        Raises InputError when H or W is no multiple of the patch size.
        """
        rows, columns = patch_grid(pixel_values, self.patch_size)
        with exact_convolutions():
            tokens = self._tokens(on_device(pixel_values, self.device))
        patches = [layer[:, self._n_prefix :].float() for layer in tokens]
        if len(patches) > 1:
            patches = [functional.normalize(layer, dim=-1) for layer in patches]
        return torch.cat(patches, dim=-1).reshape(pixel_values.shape[0], rows, columns, self.dim)

    def provenance(self) -> dict[str, str]:
        """Name, revision, SHA-256 of the weights, and settings."""
        return {
            "backbone": self.name,
            "revision": self.revision,
            "weights_sha256": self._weights_sha256,
            "layers": ",".join(map(str, self.layers)),
            "resolution": str(self.resolution),
            "square": str(self.square).lower(),
            "interpolation": self.interpolation,
            "patch_size": str(self.patch_size),
            "dtype": self.dtype,
            "engine": self.engine,
        }


class LayerTokens(nn.Module):
    """Tokens after chosen blocks (numbered from 1) of a transformer, each through its final LayerNorm.

    The highest block's come from the model's own output, the others from hooks.
    """

    def __init__(self, model: Any, blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.blocks, self.last = model, blocks, max(blocks)
        self._options = {"interpolate_pos_encoding": True} if model.config.model_type == "vit" else {}
        self._captured: dict[int, torch.Tensor] = {}
        stack = _block_list(model)
        del stack[self.last :]
        for block in set(blocks) - {self.last}:
            stack[block - 1].register_forward_hook(self._keep(block))

    def forward(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """[B, tokens, dim] for each block, in the order asked for, of pixels [B, 3, H, W]."""
        output = self.model(pixel_values.to(self.model.dtype), **self._options).last_hidden_state
        normalise = self.model.norm if hasattr(self.model, "norm") else self.model.layernorm
        found = {block: normalise(hidden) for block, hidden in self._captured.items()}
        self._captured.clear()
        return [output if block == self.last else found[block] for block in self.blocks]

    def _keep(self, block: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._captured[block] = output[0] if isinstance(output, tuple) else output

        return hook


def resize_positions(
    positions: torch.Tensor, rows: int, columns: int, *, offset: float = ORIGINAL_OFFSET, antialias: bool = False
) -> torch.Tensor:
    """Resize learnt positions [1, 1 + N * N, dim] (CLS first) to [1, 1 + rows * columns, dim] as original DINOv2 does.

    Bicubic in float32 with scale factor (rows + offset) / N and (columns + offset) / N; without an offset, to the size.
    DINOv2: offset 0.1, no antialias. With registers: no offset, antialias. An N x N grid is returned unchanged.
    """
    side = round((positions.shape[1] - 1) ** 0.5)
    if (rows, columns) == (side, side):
        return positions
    grid = positions[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    target: dict[str, Any] = {"size": (rows, columns)}
    if offset:
        target = {"scale_factor": ((rows + offset) / side, (columns + offset) / side)}
    resized = functional.interpolate(grid, mode="bicubic", antialias=antialias, **target)
    patches = resized.permute(0, 2, 3, 1).reshape(1, rows * columns, -1).to(positions.dtype)
    return torch.cat([positions[:, :1], patches], dim=1)


def _resize_positions_as_original(model: Any) -> None:
    """Have the model take its positions from `resize_positions`, computed once per patch grid and kept."""
    embeddings, patch_size = model.embeddings, int(model.config.patch_size)
    has_registers = model.config.model_type == "dinov2_with_registers"
    options: dict[str, Any] = {"offset": 0.0, "antialias": True} if has_registers else {}
    known: dict[tuple[int, int, torch.device], torch.Tensor] = {}

    def positions(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
        rows, columns = height // patch_size, width // patch_size
        key = (rows, columns, tokens.device)
        if key not in known:
            known[key] = resize_positions(embeddings.position_embeddings, rows, columns, **options)
        return known[key]

    embeddings.interpolate_pos_encoding = positions


def locate(name_or_path: str, revision: str | None, *, download: bool = True) -> tuple[Path, str]:
    """Find the model's directory: (directory, ``local``) or (snapshot of the hub's cache, commit).

    Without ``download`` the hub is not asked. Raises InputError when a local directory is incomplete, or the hub does
    not give the model.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        if revision is not None:
            logger.info("The backbone %s is a local directory: the revision %s is not used.", name_or_path, revision)
        require_files(path)
        return path, "local"
    if path.exists() or not HUB_NAME.fullmatch(name_or_path) or name_or_path.startswith("."):
        raise InputError(f"The backbone {name_or_path!r} is no directory in Hugging Face format and no hub name.")
    snapshot = fetch(name_or_path, revision) if download else cached(name_or_path, revision)
    require_files(snapshot)
    return snapshot, snapshot.name


def weights_sha256(directory: Path) -> str:
    """SHA-256 over the weight files, in the order of their names."""
    digest = hashlib.sha256()
    for file in weight_files(directory):
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _read_config(directory: Path) -> dict[str, Any]:
    config = read_json(directory / "config.json")
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        raise InputError(
            f"The backbone {directory} is of model type {kind!r}, whose patch tokens are not known here: "
            f"choose one of {', '.join(MODEL_TYPES)}."
        )
    default = transformers.AutoConfig.for_model(kind)
    return {"num_hidden_layers": default.num_hidden_layers, **config}


def _channel_statistics(directory: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the channels: of preprocessor_config.json, else of ImageNet."""
    file = directory / "preprocessor_config.json"
    content = read_json(file) if file.is_file() else {}
    mean = tuple(map(float, content.get("image_mean", IMAGENET_MEAN)))
    return mean, tuple(map(float, content.get("image_std", IMAGENET_STD)))


def _block_list(model: Any) -> nn.ModuleList:
    """The transformer's list of blocks, wherever this version of transformers keeps it."""
    n_blocks = int(model.config.num_hidden_layers)
    found = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == n_blocks]
    return found[0]


def _load_model(directory: Path, dtype: str) -> Any:
    """Load weights in ``dtype``; raises InputError when they are damaged or do not fill the model."""
    kind = read_json(directory / "config.json")["model_type"]
    extra = {"add_pooling_layer": False} if kind == "vit" else {}
    try:
        with _quiet():
            model, report = transformers.AutoModel.from_pretrained(
                directory, dtype=getattr(torch, dtype), local_files_only=True, output_loading_info=True, **extra
            )
    except Exception as error:  # damaged files raise errors of safetensors, pickle, torch and transformers
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise InputError(f"The weights in {directory} cannot be loaded ({type(error).__name__}): {reason}.") from error
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("mask_token"))
    if missing:
        raise InputError(
            f"The weights in {directory} lack {len(missing)} tensors of the model, for example {missing[0]}."
        )
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the messages and progress bars of transformers."""
    messages: Any = transformers.logging
    log = logging.getLogger("transformers")
    level = log.level
    log.setLevel(logging.ERROR)
    messages.disable_progress_bar()
    try:
        with quiet():
            yield
    finally:
        log.setLevel(level)
