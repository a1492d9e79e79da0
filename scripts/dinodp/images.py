"""Read images and masks, and score a whole image from its patches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from PIL.PngImagePlugin import PngImageFile

from dinodp.errors import InputError, one_line, require_known
from dinodp.jobs.logs import warn_once

UInt8Array = NDArray[np.uint8]
MAX_PIXELS = 2**26  # 8192 x 8192, far above a slice or a radiograph: bounds the memory that a header can ask for
MOST_LABELS = 16  # values of a mask in which each is a class; BMAD's have at most 4
MOST_INSTANCES = 64  # of lesions that are numbered from 1
HALF = 128  # where the soft edge of a mask is cut
TIFF_BITS, TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
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


@dataclass(frozen=True)
class _Opened:
    """A decoded picture, upright; ``bits`` of a value, whether its format changes values, and whether 0 is white."""

    picture: Image.Image
    bits: int
    is_lossy: bool
    is_inverted: bool

    @property
    def is_deep(self) -> bool:
        return self.picture.mode.startswith(HIGH_DEPTH_MODES)

    @property
    def top(self) -> float:
        """The value that is white; 1 of floating-point grey."""
        return 1.0 if self.picture.mode == "F" else float(2**self.bits - 1)


@dataclass(frozen=True)
class DecodedImage:
    """An image as RGB, uint8 [H, W, 3]; ``bits`` of a stored value, and the ``brightest`` as a share of their range."""

    pixels: UInt8Array
    bits: int
    brightest: float


def read_image(path: Path | str) -> UInt8Array:
    """Read an image (PNG, JPEG, TIFF, BMP) as RGB, upright as its EXIF orientation says.

    Grey and palette images become RGB; alpha is dropped, not blended, and that is logged where it is not the same
    everywhere. Grey of more than 8 bits is scaled by the full range that its header gives (16 bits: 65535 -> 255), the
    same for every image; floating-point grey must lie in [0, 1]. What is white at zero (TIFF) is inverted.

    Returns uint8 [H, W, 3].
    Raises InputError when the file is missing, empty, truncated, unreadable, holds several images or more than
    MAX_PIXELS, values that are not finite or out of range, or all that it shows in its alpha channel.
    """
    return decode_image(path).pixels


def decode_image(path: Path | str) -> DecodedImage:
    """As `read_image`, with what the file says of its values."""
    opened = _open(path)
    if not opened.is_deep:
        pixels = _colours(opened, path)
        return DecodedImage(pixels, opened.bits, float(pixels.max()) / 255)
    grey = _deep_grey(opened, path)
    scaled = np.round(grey * 255.0).astype(np.uint8)
    return DecodedImage(np.repeat(scaled[:, :, None], 3, axis=2), opened.bits, float(grey.max()))


def read_values(path: Path | str) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Read an image with its values as they are stored: uint8 [H, W, 3], or float32 [H, W] of more than 8 bits.

    Raises InputError as `read_image` does; the range is not limited.
    """
    opened = _open(path)
    return _finite(opened, path).astype(np.float32) if opened.is_deep else _colours(opened, path)


def read_window(path: Path | str, window: Sequence[float]) -> UInt8Array:
    """Stored values scaled so that the two of the ``window`` become 0 and 255; uint8 [H, W] or [H, W, 3].

    Raises InputError as `read_image` does; the range is not limited.
    """
    low, high = window
    values = read_values(path).astype(np.float64)
    return np.round(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def read_mask(path: Path | str) -> UInt8Array:
    """Read a mask as grey values, upright as its EXIF says; of a colour mask its luma, at least 1 where not black.

    BMAD's brain masks are colours of which the luma is 0, 58, 122 or 255. What is transparent is no lesion; a mask of
    one colour is its alpha channel. 8-bit values stay as they are and 1-bit masks become 0 and 255. Values of more
    bits stay when none exceeds 255, else they are scaled by the full range (65535 -> 255); a value above 0 never
    becomes 0. Soft edges, such as JPEG makes, are cut at half of the range, which is logged.

    Returns uint8 [H, W].
    Raises InputError as `read_image` does, and for a map of probabilities and one channel per class.
    """
    opened = _open(path)
    return _labels(_deep_mask(opened, path) if opened.is_deep else _plain_mask(opened, path), opened.is_lossy, path)


def _plain_mask(opened: _Opened, path: Path | str) -> UInt8Array:
    """Values [H, W] of a mask of at most 8 bits; of a mask of one colour, its alpha."""
    picture = opened.picture
    colours = np.asarray(picture.convert("RGB"), dtype=np.uint8)
    alpha = np.asarray(picture.convert("RGBA").getchannel("A")) if picture.has_transparency_data else None
    grey = np.maximum(np.asarray(picture.convert("RGB").convert("L"), dtype=np.uint8), colours.any(axis=2))
    channels = colours if alpha is None else np.dstack([colours, alpha])
    if len(picture.getbands()) > 2 and _is_one_hot(channels):
        raise InputError(f"The mask {path} has one channel per class (one-hot): save the lesion's channel alone.")
    if alpha is None or alpha.min() == 255:
        return grey
    if (colours == colours[0, 0]).all():
        warn_once("mask_in_alpha", f"A mask has one colour, so its alpha channel is the mask: {path} (said once).")
        return alpha
    return np.where(alpha > 0, grey, np.uint8(0)) if alpha.any() else grey


def _is_one_hot(channels: UInt8Array) -> bool:
    """Whether every pixel [H, W, C] has one channel above 0, and not all the same one."""
    lit = channels > 0
    return bool((lit.sum(axis=2) == 1).all()) and int(lit.any(axis=(0, 1)).sum()) > 1


def _deep_mask(opened: _Opened, path: Path | str) -> UInt8Array:
    """Values [H, W] of a mask of more than 8 bits."""
    grey = _deep_grey(opened, path)
    if opened.picture.mode != "F" and grey.max() * opened.top <= 255:
        return np.round(grey * opened.top).astype(np.uint8)
    return np.maximum(np.round(grey * 255.0), grey > 0).astype(np.uint8)


def _labels(values: UInt8Array, is_lossy: bool, path: Path | str) -> UInt8Array:
    """The values where they are labels; 0 and 255 where they are a shape with soft edges."""
    counts = np.bincount(values.ravel(), minlength=256)
    present = np.flatnonzero(counts[1:]) + 1
    numbered = len(present) <= MOST_INSTANCES and len(present) > 0 and present[-1] == len(present)
    if (len(present) <= MOST_LABELS or numbered) and not (is_lossy and set(present) - {255}):
        return values
    if present[-1] < HALF or counts[HALF // 2 : HALF + HALF // 2].sum() > counts[HALF // 2 :].sum() / 2:
        raise InputError(
            f"The mask {path} holds {len(present)} values from 1 to {present[-1]}: labels in a format that changes "
            "them (JPEG), or probabilities. Save labels as PNG; of probabilities, save where they exceed a threshold."
        )
    warn_once(
        "soft_mask", f"A mask has soft edges ({len(present)} values, as JPEG makes); cut at 128: {path} (said once)."
    )
    return np.where(values >= HALF, np.uint8(255), np.uint8(0))


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


def orientation_of(picture: Image.Image) -> int:
    """How an image is still to be turned: its EXIF orientation, 1 (upright) to 8; from 5 on, sides are exchanged."""
    if picture.format == "TIFF":
        return 1  # turned by Pillow
    if isinstance(picture, PngImageFile) and not {"exif", "Raw profile type exif"} & set(picture.info):
        return 1  # Pillow would decode the picture to look behind it
    found = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return found if found in range(1, 9) else 1


def _open(path: Path | str) -> _Opened:
    """Decode the whole file, so that a truncated one is found here."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"The image {file} does not exist.")
    if file.stat().st_size == 0:
        raise InputError(f"The image {file} is empty (0 bytes).")
    try:
        # a stream: of a file by its name Pillow maps a turned TIFF into memory, and mixes up its sides
        with file.open("rb") as stream, Image.open(stream) as picture:
            _require_size(picture, file)
            frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)  # MPO: a photograph, previews
            is_16 = ";16" in str(picture.tile)  # also of colours, of which Pillow keeps the upper 8 bits
            picture.load()
            opened = _described(picture, is_16, file)
    except InputError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise InputError(f"The image {file} cannot be read, it is damaged or no image: {one_line(error)}.") from error
    if frames > 1:
        raise InputError(f"The image {file} holds {frames} images: give one file per image.")
    return opened


def _described(picture: Image.Image, is_16: bool, path: Path) -> _Opened:
    """A decoded picture, upright, with what its header says of its values."""
    tags = getattr(picture, "tag_v2", {})
    is_lossy = picture.format in ("JPEG", "MPO") or picture.info.get("compression") == "jpeg"
    bits = {"I": 16, "F": 32}.get(picture.mode[0], 16 if is_16 else 8)
    if picture.mode[0] == "I" and picture.format == "TIFF":
        bits = min(16, tags.get(TIFF_BITS, (16,))[0])
    is_inverted = picture.mode.startswith(HIGH_DEPTH_MODES) and tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO
    if (orientation := orientation_of(picture)) != 1:
        said = f"An image is turned upright as its EXIF orientation ({orientation}) says, and its mask taken as upright"
        warn_once("exif", f"{said}: {path} (said once).")
        ImageOps.exif_transpose(picture, in_place=True)
    return _Opened(picture, bits, is_lossy, is_inverted)


def _require_size(picture: Image.Image, path: Path) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise InputError(
            f"The image {path} has {picture.width} x {picture.height} pixels, more than {MAX_PIXELS} in all: make it "
            "smaller, or cut it."
        )


def _varies(channel: Image.Image) -> bool:
    low, high = channel.getextrema()
    return low != high


def _colours(opened: _Opened, path: Path | str) -> UInt8Array:
    """RGB [H, W, 3] of an image of 8 bits, its alpha dropped."""
    pixels = np.asarray(opened.picture.convert("RGB"), dtype=np.uint8)
    if opened.picture.has_transparency_data and _varies(opened.picture.convert("RGBA").getchannel("A")):
        if (pixels == pixels[0, 0]).all():
            raise InputError(f"The image {path} has one colour; what it shows is in its alpha channel: flatten it.")
        warn_once("alpha", f"An image is transparent in places; its alpha channel is left out: {path} (said once).")
    return pixels


def _finite(opened: _Opened, path: Path | str) -> NDArray[np.float64]:
    """Values [H, W] of an image of more than 8 bits. Raises InputError for NaN and infinity."""
    values = np.asarray(opened.picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"The image {path} holds values that are not finite (NaN or infinity).")
    return opened.top - values if opened.is_inverted else values


def _deep_grey(opened: _Opened, path: Path | str) -> NDArray[np.float64]:
    """Values [H, W] of an image of more than 8 bits as fractions of the full range."""
    values, top = _finite(opened, path), opened.top
    if values.min() < 0 or values.max() > top:
        raise InputError(
            f"The image {path} holds values from {values.min():g} to {values.max():g}, outside 0 to {top:g}: "
            "convert it to 8 or 16 bits with one intensity window for all images (in the catalog: the key window)."
        )
    return values / top


def image_score(maps: NDArray[np.float32], fraction: float = 0.01) -> NDArray[np.float32]:
    """Mean [n] of the highest ``fraction`` (at least one) of the patch scores [n, row, col] of each image."""
    flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2])
    count = max(1, int(flat.shape[1] * fraction))
    highest = np.partition(flat, flat.shape[1] - count, axis=1)[:, -count:]
    means: NDArray[np.float32] = highest.mean(axis=1, dtype=np.float64).astype(np.float32)
    return means
