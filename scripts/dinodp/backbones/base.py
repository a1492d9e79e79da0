"""What a family of backbones is: the options of a catalog entry, which load the backbone. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Protocol

from pydantic import field_validator

from dinodp.errors import InputError
from dinodp.jobs.devices import ACCELERATORS, best_kind, count_of
from dinodp.jobs.files import user_path
from dinodp.options.base import Options, option
from dinodp.options.choices import FromOne

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy as np
    import torch
    from numpy.typing import NDArray


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


class EmbeddingOptions(Options):
    """Keys of every embedding.

    A subclass is a family of backbones.
    """

    IS_FALLBACK: ClassVar[bool] = False  # asked last

    backbone: str = option(..., "`classical`, a hub name, or a local directory in Hugging Face format.")
    resolution: int = option(448, "Short side of the resized image.", unit="pixels", ge=1)
    square: bool = option(False, "Resize to a square and give up the aspect ratio.")
    grid: tuple[FromOne, FromOne] | None = option(
        None,
        "Patch grid [rows, columns] to which embeddings are resampled when they are read; absent: the backbone's own.",
        changes_result=False,  # of the embedding; models have it as a parameter of their own
    )
    batch_size: int = option(8, "Images per forward pass.", changes_result=False, ge=1)

    @field_validator("backbone")
    @classmethod
    def _expand(cls, backbone: str) -> str:
        return str(user_path(backbone)) if backbone.startswith("~") else backbone

    @classmethod
    def serves(cls, backbone: str) -> bool:
        """Whether a backbone is of this family."""
        raise NotImplementedError

    @classmethod
    def whose(cls) -> str:
        """The family."""
        return f" for a backbone of the family {cls.__module__.rpartition('.')[2]!r}"

    @classmethod
    def fastest(cls, device: str) -> dict[str, str]:
        """Options under which a device computes the same fastest; empty where there is no choice."""
        return {}

    def check(self, where: str) -> None:
        """Raise InputError, beginning with ``where``, for what can be seen to be wrong without loading anything."""

    def weights(self) -> tuple[str, str | None] | None:
        """Name and revision of the weights on the Hugging Face hub; None where none come from there."""
        return None

    def check_data(self, digests: Iterable[str]) -> None:
        """Raise InputError for a backbone that is not meant for these training images (SHA-256 each)."""

    def load(self, device: str) -> Backbone:
        """The backbone on a device that `torch_device` knows. Raises InputError where it cannot be had."""
        raise NotImplementedError

    def load_local(self, device: str) -> Backbone:
        """As `load`, but from what is on this machine."""
        return self.load(device)


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


def torch_device(name: str) -> torch.device:
    """The device of a name: ``cpu``, ``cuda``, ``xpu`` or ``mps``, with a number or without; ``auto``: `best_kind`.

    Raises InputError for one that is not there.
    """
    import torch

    try:
        device = torch.device(best_kind() if name == "auto" else name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type != "cpu" and device.type not in ACCELERATORS:
        raise InputError(f"Unknown device {name!r}: choose auto, cpu, cuda, mps or xpu.")
    if device.type != "cpu" and (device.index or 0) >= (count := count_of(device.type)):
        raise InputError(f"Device {name} was asked for but {count} {device.type.upper()} devices are visible: use cpu.")
    return device


def exact_convolutions() -> AbstractContextManager[None]:
    """Within it convolutions have the precision of their numbers, and the same bytes each time.

    By default NVIDIA's GPUs round float32 to TF32, 10 bits of mantissa, before they convolve.
    """
    import torch

    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def on_device(pixel_values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Pixel values on a device. Only a copy from pinned memory is not waited for: other memory may be freed before."""
    return pixel_values.to(device, non_blocking=pixel_values.is_pinned())
