"""Prepare images for a backbone.

Follows AnomalyDINO (Damm et al., WACV 2025) and torchvision's transforms: Pillow's bicubic resize of the short side
(antialiased, as Pillow always is; bilinear on request, as the follow-up has it), crop from the top-left corner to a
multiple of the patch size, scaling to [0, 1], standardisation per channel.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from dinodp.errors import InputError
from dinodp.images import UInt8Array
from dinodp.options.choices import Interpolation

FILTERS: dict[Interpolation, Image.Resampling] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


def resize_short_side(image: UInt8Array, resolution: int, interpolation: Interpolation = "bicubic") -> UInt8Array:
    """Resize so that the short side is ``resolution``: Pillow's interpolation with antialiasing.

    The long side is rounded down, as torchvision's ``Resize`` does. Takes and returns uint8 [H, W, 3] or [H, W, 1].
    """
    height, width = image.shape[:2]
    short = min(height, width)
    return _resize(image, int(resolution * height / short), int(resolution * width / short), interpolation)


def _resize(image: UInt8Array, height: int, width: int, interpolation: Interpolation) -> UInt8Array:
    if image.shape[:2] == (height, width):
        return image
    picture = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
    resized = np.asarray(picture.resize((width, height), FILTERS[interpolation]), dtype=np.uint8)
    return resized.reshape(height, width, image.shape[2])


def crop_to_multiple(image: UInt8Array, patch_size: int) -> UInt8Array:
    """Keep the first floor(H / p) p rows and floor(W / p) p columns: the top-left corner stays, as in AnomalyDINO.

    ``image`` is uint8 [H, W, C]. Raises InputError when it is smaller than one patch.
    """
    height, width = (side // patch_size * patch_size for side in image.shape[:2])
    if height == 0 or width == 0:
        raise InputError(
            f"An image of {image.shape[0]}x{image.shape[1]} is smaller than a patch of {patch_size} pixels."
        )
    return image[:height, :width]


def to_tensor(image: UInt8Array, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Scale uint8 [H, W, 3], or [H, W, 1] of three equal channels, to [0, 1] and standardise each channel.

    Returns float32 [3, H, W], contiguous. By NumPy: torch would take further threads in each of those that prepare.
    """
    channels = np.broadcast_to(np.moveaxis(image, 2, 0), (3, *image.shape[:2]))
    values = np.empty(channels.shape, dtype=np.float32)
    np.divide(channels, np.float32(255), out=values)
    offset, scale = (np.array(numbers, dtype=np.float32)[:, None, None] for numbers in (mean, std))
    values -= offset
    values /= scale
    return torch.from_numpy(values)


def preprocess(
    image: UInt8Array,
    resolution: int,
    patch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    square: bool = False,
    interpolation: Interpolation = "bicubic",
) -> torch.Tensor:
    """Resize, crop and standardise one image uint8 [H, W, 3] for a backbone; returns float32 [3, rows p, columns p].

    The short side becomes ``resolution``; with ``square`` both sides do, whatever the aspect ratio.
    Raises InputError when ``resolution`` is smaller than ``patch_size``.
    """
    channels = image[:, :, :1] if _is_grey(image) else image  # three equal channels need resizing once only
    if square:
        resized = _resize(channels, resolution, resolution, interpolation)
    else:
        resized = resize_short_side(channels, resolution, interpolation)
    return to_tensor(crop_to_multiple(resized, patch_size), mean, std)


def _is_grey(image: UInt8Array) -> bool:
    first, second, third = np.moveaxis(image, 2, 0)
    return np.array_equal(first, second) and np.array_equal(first, third)
