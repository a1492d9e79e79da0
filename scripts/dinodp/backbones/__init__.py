"""Frozen backbones: an image goes in, one vector per patch comes out. One file per family."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dinodp.errors import InputError, require_known

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Backbone(Protocol):
    """What every family offers.

    ``dim`` is the length of a patch embedding (of all layers, concatenated), ``mean`` and ``std`` standardise the
    channels of an image in [0, 1].
    """

    name: str
    revision: str
    patch_size: int
    dim: int
    resolution: int
    layers: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def prepare(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Resize, crop and standardise uint8 [H, W, 3] to float32 [3, rows * patch_size, columns * patch_size]."""
        ...

    def embed(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embed float [B, 3, H, W] to raw (not normalised) float32 [B, rows, columns, dim], on its device."""
        ...

    def provenance(self) -> dict[str, str]:
        """Everything that the embeddings depend on, for the attributes of a file."""
        ...


def load_backbone(
    name_or_path: str,
    *,
    revision: str | None = None,
    resolution: int = 448,
    layers: Sequence[int] = (-1,),
    dtype: str = "float32",
    device: str = "cpu",
    square: bool = False,
) -> Backbone:
    """Load a frozen backbone for inference.

    ``name_or_path`` is ``classical``, a local directory in Hugging Face format, or a name on the Hugging Face hub (then
    ``revision`` is a commit, tag or branch). ``resolution`` is the length of the short side after resizing, or of both
    with ``square``. ``layers`` counts blocks from 1, or from the end with -1 the last. ``device`` may be ``auto``: CUDA
    where there is one, else the CPU.

    Raises InputError, in one sentence, for anything that cannot be had: see the families.
    """
    require_known("dtype", dtype, DTYPES)
    chosen = _device(device)
    if name_or_path == "classical":
        from dinodp.backbones.classical import ClassicalBackbone

        _require_classical_options(revision, layers, dtype)
        return ClassicalBackbone(resolution=resolution, device=chosen, square=square)
    from dinodp.backbones.huggingface import HuggingFaceBackbone  # transformers takes seconds to import

    return HuggingFaceBackbone(
        str(name_or_path),
        revision=revision,
        resolution=resolution,
        layers=tuple(layers),
        dtype=dtype,
        device=chosen,
        square=square,
    )


def require_resolution(resolution: int, patch_size: int, name: str) -> None:
    """Raise InputError when no patch fits into the resolution."""
    if resolution < patch_size:
        raise InputError(f"Resolution {resolution} is below the patch size of {name}: use at least {patch_size}.")


def patch_grid(pixel_values: torch.Tensor, patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches of [B, 3, H, W]; raises InputError when the shape is another one."""
    shape = tuple(pixel_values.shape)
    if len(shape) != 4 or shape[1] != 3 or min(shape[2:]) < patch_size or any(side % patch_size for side in shape[2:]):
        raise InputError(f"Pixel values have shape {shape}: need [B, 3, H, W] with H and W multiples of {patch_size}.")
    return shape[2] // patch_size, shape[3] // patch_size


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"Unknown device {name!r}: choose cpu, cuda, cuda:N or auto.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"Device {name} was asked for but {torch.cuda.device_count()} CUDA devices are visible: use cpu."
        )
    return device


def _require_classical_options(revision: str | None, layers: Sequence[int], dtype: str) -> None:
    if revision is not None or tuple(layers) != (-1,) or dtype != "float32":
        raise InputError("The backbone classical has no revision, one layer (-1) and dtype float32 only.")
