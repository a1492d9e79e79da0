"""Read images and masks, and prepare images for a backbone.

Preparation follows AnomalyDINO (Damm et al., WACV 2025) and torchvision's transforms: Pillow's bicubic resize of the
short side (antialiased, as Pillow always is), crop from the top-left corner to a multiple of the patch size, scaling to
[0, 1], standardisation per channel.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dinodp.errors import InputError

UInt8Array = NDArray[np.uint8]
FULL_RANGE_16 = 65535
HIGH_DEPTH_MODES = ("I", "F")  # the first letter of Pillow's modes for 16-bit, 32-bit and floating-point grey


def read_image(path: Path | str) -> UInt8Array:
    """Read an image (PNG, JPEG, TIFF, BMP) as RGB.

    Grey and palette images become RGB; alpha is dropped, not blended; the EXIF orientation is ignored. 16-bit grey is
    scaled by its full range (65535 -> 255), the same for every image; floating-point grey must lie in [0, 1].

    Returns uint8 [H, W, 3].
    Raises InputError when the file is missing, empty, truncated, unreadable, holds several images, or values that are
    not finite or out of range.
    """
    picture = _open(path)
    if not picture.mode.startswith(HIGH_DEPTH_MODES):
        return np.asarray(picture.convert("RGB"), dtype=np.uint8)
    grey = _deep_grey(picture, path)
    scaled = np.round(grey * 255.0).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, axis=2)


def read_mask(path: Path | str) -> UInt8Array:
    """Read a mask as grey values; of a colour or palette mask, the maximum over R, G and B (alpha is ignored).

    8-bit values stay as they are and 1-bit masks become 0 and 255. 16-bit values stay when none exceeds 255, else they
    are scaled by the full range (65535 -> 255); a value above 0 never becomes 0.

    Returns uint8 [H, W].
    Raises InputError as `read_image` does.
    """
    picture = _open(path)
    if picture.mode in ("L", "LA", "La", "1"):
        return np.asarray(picture.convert("L"), dtype=np.uint8)
    if not picture.mode.startswith(HIGH_DEPTH_MODES):
        largest: UInt8Array = np.asarray(picture.convert("RGB"), dtype=np.uint8).max(axis=2)
        return largest
    grey = _deep_grey(picture, path)
    if picture.mode != "F" and grey.max() * FULL_RANGE_16 <= 255:
        return np.round(grey * FULL_RANGE_16).astype(np.uint8)
    return np.maximum(np.round(grey * 255.0), grey > 0).astype(np.uint8)


def _open(path: Path | str) -> Image.Image:
    """Decode the whole file, so that a truncated one is found here."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"The image {file} does not exist.")
    if file.stat().st_size == 0:
        raise InputError(f"The image {file} is empty (0 bytes).")
    try:
        with Image.open(file) as picture:
            frames = getattr(picture, "n_frames", 1)
            picture.load()
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise InputError(f"The image {file} cannot be read, it is damaged or no image: {_one_line(error)}.") from error
    if frames > 1:
        raise InputError(f"The image {file} holds {frames} images: give one file per image.")
    return picture


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _deep_grey(picture: Image.Image, path: Path | str) -> NDArray[np.float64]:
    """Values [H, W] of a 16-bit or floating-point image as fractions of the full range."""
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"The image {path} holds values that are not finite (NaN or infinity).")
    top = 1.0 if picture.mode == "F" else float(FULL_RANGE_16)
    if values.min() < 0 or values.max() > top:
        raise InputError(
            f"The image {path} holds values from {values.min():g} to {values.max():g}, outside 0 to {top:g}: "
            "convert it to 8 or 16 bits with one intensity window for all images."
        )
    return values / top


def resize_short_side(image: UInt8Array, resolution: int) -> UInt8Array:
    """Resize so that the short side is ``resolution``: Pillow bicubic with antialiasing.

    The long side is rounded down, as torchvision's ``Resize`` does. Takes and returns uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    short = min(height, width)
    return _resize(image, int(resolution * height / short), int(resolution * width / short))


def _resize(image: UInt8Array, height: int, width: int) -> UInt8Array:
    if image.shape[:2] == (height, width):
        return image
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.uint8)


def crop_to_multiple(image: UInt8Array, patch_size: int) -> UInt8Array:
    """Keep the first floor(H / p) p rows and floor(W / p) p columns: the top-left corner stays, as in AnomalyDINO.

    ``image`` is uint8 [H, W, 3]. Raises InputError when it is smaller than one patch.
    """
    height, width = (side // patch_size * patch_size for side in image.shape[:2])
    if height == 0 or width == 0:
        raise InputError(
            f"An image of {image.shape[0]}x{image.shape[1]} is smaller than a patch of {patch_size} pixels."
        )
    return image[:height, :width]


def to_tensor(image: UInt8Array, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Scale uint8 [H, W, 3] to [0, 1] and standardise each channel; returns float32 [3, H, W], contiguous."""
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
    offset, scale = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (mean, std))
    return tensor.div_(255.0).sub_(offset).div_(scale)


def preprocess(
    image: UInt8Array,
    resolution: int,
    patch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    square: bool = False,
) -> torch.Tensor:
    """Resize, crop and standardise one image uint8 [H, W, 3] for a backbone; returns float32 [3, rows p, columns p].

    The short side becomes ``resolution``; with ``square`` both sides do, whatever the aspect ratio.
    Raises InputError when ``resolution`` is smaller than ``patch_size``.
    """
    resized = _resize(image, resolution, resolution) if square else resize_short_side(image, resolution)
    return to_tensor(crop_to_multiple(resized, patch_size), mean, std)
