"""Read images and masks, and score a whole image from its patches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinodp.errors import InputError, one_line, require_known

UInt8Array = NDArray[np.uint8]
FULL_RANGE_16 = 65535
MAX_PIXELS = 2**26  # 8192 x 8192, far above a slice or a radiograph: bounds the memory that a header can ask for
HIGH_DEPTH_MODES = ("I", "F")  # the first letter of Pillow's modes for 16-bit, 32-bit and floating-point grey


@dataclass(frozen=True)
class MaskRule:
    """Which values of a mask are anomalous, and how a report says it."""

    holds: Callable[[Any], Any]
    words: str


MASK_RULES = {
    "gt0": MaskRule(lambda values: values > 0, "every value above 0"),
    "eq255": MaskRule(lambda values: values == 255, "only 255"),
}


def read_image(path: Path | str) -> UInt8Array:
    """Read an image (PNG, JPEG, TIFF, BMP) as RGB.

    Grey and palette images become RGB; alpha is dropped, not blended; the EXIF orientation is ignored. 16-bit grey is
    scaled by its full range (65535 -> 255), the same for every image; floating-point grey must lie in [0, 1].

    Returns uint8 [H, W, 3].
    Raises InputError when the file is missing, empty, truncated, unreadable, holds several images or more than
    MAX_PIXELS, or values that are not finite or out of range.
    """
    picture = _open(path)
    if not picture.mode.startswith(HIGH_DEPTH_MODES):
        return np.asarray(picture.convert("RGB"), dtype=np.uint8)
    grey = _deep_grey(picture, path)
    scaled = np.round(grey * 255.0).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, axis=2)


def read_values(path: Path | str) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Read an image with its values as they are stored: uint8 [H, W, 3], or float32 [H, W] of more than 8 bits.

    Raises InputError as `read_image` does; the range is not limited.
    """
    picture = _open(path)
    if not picture.mode.startswith(HIGH_DEPTH_MODES):
        return np.asarray(picture.convert("RGB"), dtype=np.uint8)
    values = np.asarray(picture).astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"The image {path} holds values that are not finite (NaN or infinity).")
    return values


def read_mask(path: Path | str) -> UInt8Array:
    """Read a mask as grey values; of a colour or palette mask, its luma, at least 1 where it is not black.

    BMAD's brain masks are colours of which the luma is 0, 58, 122 or 255; alpha is ignored.
    8-bit values stay as they are and 1-bit masks become 0 and 255. 16-bit values stay when none exceeds 255, else they
    are scaled by the full range (65535 -> 255); a value above 0 never becomes 0.

    Returns uint8 [H, W].
    Raises InputError as `read_image` does.
    """
    picture = _open(path)
    if picture.mode in ("L", "LA", "La", "1"):
        return np.asarray(picture.convert("L"), dtype=np.uint8)
    if not picture.mode.startswith(HIGH_DEPTH_MODES):
        coloured = np.asarray(picture.convert("RGB"), dtype=np.uint8).any(axis=2)
        return np.maximum(np.asarray(picture.convert("RGB").convert("L"), dtype=np.uint8), coloured)
    grey = _deep_grey(picture, path)
    if picture.mode != "F" and grey.max() * FULL_RANGE_16 <= 255:
        return np.round(grey * FULL_RANGE_16).astype(np.uint8)
    return np.maximum(np.round(grey * 255.0), grey > 0).astype(np.uint8)


def resize_mask(mask: NDArray[np.uint8], size: Sequence[int]) -> NDArray[np.uint8]:
    """A mask [H, W] at ``size`` (height, width): the nearest pixel, so that small lesions keep their share of it."""
    height, width = size
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def anomalous_in(values: NDArray[Any], rule: str) -> NDArray[np.bool_]:
    """Which values of a mask are anomalous under a rule of ``MASK_RULES``. Raises InputError for another name."""
    require_known("mask rule", rule, MASK_RULES)
    return np.asarray(MASK_RULES[rule].holds(np.asarray(values)))


def read_mask_at(path: Path | str, size: Sequence[int]) -> UInt8Array:
    """A mask as grey values at ``size`` (height, width); without a file (an empty path) it is 0 everywhere."""
    if not str(path):
        return np.zeros((int(size[0]), int(size[1])), dtype=np.uint8)
    mask = read_mask(path)
    return mask if mask.shape == tuple(size) else resize_mask(mask, size)


def read_lesion(path: Path | str, rule: str, size: Sequence[int] | None = None) -> NDArray[np.bool_]:
    """Anomalous pixels [H, W] of a mask under a rule, at ``size`` (height, width) or the mask's own.

    Raises InputError as `read_mask` does and for an unknown rule.
    """
    return anomalous_in(read_mask(path) if size is None else read_mask_at(path, size), rule)


def _open(path: Path | str) -> Image.Image:
    """Decode the whole file, so that a truncated one is found here."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"The image {file} does not exist.")
    if file.stat().st_size == 0:
        raise InputError(f"The image {file} is empty (0 bytes).")
    try:
        with Image.open(file) as picture:
            _require_size(picture, file)
            frames = getattr(picture, "n_frames", 1)
            picture.load()
    except InputError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise InputError(f"The image {file} cannot be read, it is damaged or no image: {one_line(error)}.") from error
    if frames > 1:
        raise InputError(f"The image {file} holds {frames} images: give one file per image.")
    return picture


def _require_size(picture: Image.Image, path: Path) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise InputError(
            f"The image {path} has {picture.width} x {picture.height} pixels, more than {MAX_PIXELS} in all: make it "
            "smaller, or cut it."
        )


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


def image_score(maps: NDArray[np.float32], fraction: float = 0.01, sigma: float = 0.0) -> NDArray[np.float32]:
    """Mean [n] of the highest ``fraction`` (at least one) of the patch scores [n, row, col] of each image.

    ``sigma`` > 0 smooths them first by a Gaussian of that many patches, so that single high patches count less.
    """
    if sigma > 0:
        from scipy import ndimage  # the configuration is read where there is none

        maps = ndimage.gaussian_filter(maps, (0, sigma, sigma))
    flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2])
    count = max(1, int(flat.shape[1] * fraction))
    highest = np.partition(flat, flat.shape[1] - count, axis=1)[:, -count:]
    means: NDArray[np.float32] = highest.mean(axis=1, dtype=np.float64).astype(np.float32)
    return means
