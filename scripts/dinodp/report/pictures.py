"""Pictures, masks and maps in a form that a page can carry."""

import base64
import io
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

from dinodp.metrics.anomaly_maps import Map, anomaly_map

SIDE = 256  # pixels of the longer side on the page; smaller images keep their size
FIGURE_WIDTH = 1400  # pixels
FIGURE_QUALITY = 80  # WebP; text stays sharp
MAP_COLOURS = "magma"  # as in the figures
TOP = 65535  # maps are quantised to 16 bits


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of an image on the page."""
    scale = min(1.0, SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def picture(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> str:
    """An image [H, W, 3] reduced to ``size`` (height, width), as a data: address; grey where its channels are equal."""
    grey = bool((image == image[..., :1]).all())
    pixels = Image.fromarray(np.ascontiguousarray(image[..., 0]) if grey else image)
    if size != image.shape[:2]:
        pixels = pixels.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return data_address(pixels, "png", {"optimize": True})


def figure(path: Path) -> str:
    """A figure's PNG reduced to the width of a page, as a data: address."""
    with Image.open(path) as drawn:
        pixels = drawn.convert("RGB")
    if pixels.width > FIGURE_WIDTH:
        height = round(pixels.height * FIGURE_WIDTH / pixels.width)
        pixels = pixels.resize((FIGURE_WIDTH, height), Image.Resampling.LANCZOS)
    return data_address(pixels, "webp", {"quality": FIGURE_QUALITY, "method": 6})


def data_address(pixels: Image.Image, kind: str, options: Mapping[str, Any]) -> str:
    """An image file inside an address, so that the page needs no other file."""
    buffer = io.BytesIO()
    pixels.save(buffer, kind, **options)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def runs(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of a mask [H, W] in row-major order, the first of False (it may be 0)."""
    values = mask.ravel()
    changes = np.flatnonzero(np.diff(values)) + 1
    lengths = [int(end - start) for start, end in pairwise([0, *changes, len(values)])]
    return [0, *lengths] if values[0] else lengths


def map_to_show(patch_map: Map, size: tuple[int, int], smoothing_sigma: float) -> Map:
    """Values that the page upsamples bilinearly: the patch scores or, of a smoothed map, twice their grid."""
    if smoothing_sigma == 0:
        return patch_map
    rows, columns = patch_map.shape
    smooth = Image.fromarray(anomaly_map(patch_map, size, smoothing_sigma))
    return np.asarray(smooth.resize((2 * columns, 2 * rows), Image.Resampling.BOX))


def quantised(values: Map, low: float, high: float) -> dict[str, Any]:
    """A map as rows, columns and base64 of little-endian 16-bit integers: 0 is ``low``, 65535 is ``high``."""
    share = (values.astype(np.float64) - low) / ((high - low) or 1.0)
    levels = np.round(np.clip(share, 0, 1) * TOP).astype("<u2")
    rows, columns = values.shape
    return {"rows": rows, "columns": columns, "values": base64.b64encode(levels.tobytes()).decode()}


def colour_scale() -> list[list[int]]:
    """256 colours [red, green, blue] of the maps."""
    colours = colormaps[MAP_COLOURS](np.arange(256), bytes=True)
    return [[int(channel) for channel in colour[:3]] for colour in colours]
