"""Pictures of the slices that score highest: the scan, the map in colour above it, and where it exceeds a threshold.

Axial and coronal slices are shown as radiologists see them: the patient's right is on the left of the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image
from scipy import ndimage

from dinodp.datasets.geometry import VolumeGeometry
from dinodp.datasets.volumes import to_grey
from dinodp.report.pictures import data_address
from dinodp.scans.detecting.calibration import Calibration
from dinodp.scans.detecting.healthy import bounds
from dinodp.scans.detecting.scoring import ScoredScan

SAGITTAL = 0
MARGIN = 6  # pixels around the foreground
COLOURS, OUTLINE = "inferno", (86, 180, 233)
COLOUR_REACH = 4.0  # the brightest colour lies this many times (fpr01 - fpr10) above fpr10
FAINTEST, STRONGEST = 0.25, 0.8  # opacity at the ends of the colours
LONGEST_SIDE = 320  # pixels of a picture
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class EncodedView:
    """One slice for the gallery: both layers as data: addresses of WebP, some 20 KB instead of 700 KB of pixels."""

    index: int
    score: float
    height: int
    width: int
    base: str
    overlay: str


@dataclass(frozen=True)
class View:
    """One slice: ``index`` on disk, its score, ``base`` uint8 [H, W, 3] and ``overlay`` uint8 [H, W, 4]."""

    index: int
    score: float
    base: Picture
    overlay: Picture

    def blended(self) -> Picture:
        """The overlay on the base [H, W, 3]."""
        pixels = Image.fromarray(self.base).convert("RGBA")
        pixels.alpha_composite(Image.fromarray(self.overlay))
        return np.asarray(pixels.convert("RGB"))

    def encoded(self) -> EncodedView:
        """The view as the gallery needs it."""
        base = data_address(Image.fromarray(self.base), "webp", {"quality": 85})
        overlay = data_address(Image.fromarray(self.overlay), "webp", {"lossless": True, "exact": False})
        height, width = self.base.shape[:2]
        return EncodedView(self.index, self.score, height, width, base, overlay)


def views(scored: ScoredScan, calibration: Calibration, threshold: float, n: int) -> list[View]:
    """Up to ``n`` slices in the order of the stack: the highest slice scores, not next to each other."""
    return [_view(scored, place, calibration, threshold) for place in sorted(_highest(scored.slice_scores, n))]


def _highest(scores: npt.NDArray[np.float32], n: int) -> list[int]:
    """Places of the highest scores that are at least a tenth of the slices apart."""
    apart, found = max(1, len(scores) // 10), list[int]()
    for place in np.argsort(-scores, kind="stable").tolist():
        if all(abs(place - other) >= apart for other in found):
            found.append(place)
    return found[:n]


def _view(scored: ScoredScan, place: int, calibration: Calibration, threshold: float) -> View:
    scan, index = scored.scan, scored.chosen[place]
    inside = [slice(max(0, first - MARGIN), last + 1 + MARGIN) for first, last in bounds(scan.foreground)]
    rows, columns = inside if scan.geometry is not None else (slice(None), slice(None))
    grey = to_grey(scan.values[index][rows, columns], *scored.prepared.window)
    scores, counted = (values[index][rows, columns] for values in (scored.anomaly_map, scored.scored))
    size = _shown_size(grey.shape[:2], scan.spacing)
    base = _resized(grey if grey.ndim == 3 else np.repeat(grey[:, :, None], 3, axis=2), size)
    overlay = _overlay(_resized(np.where(counted, scores, scores.min()), size), calibration, threshold)
    score = float(scored.slice_scores[place])
    if scan.geometry is None:
        return View(0, score, base, overlay)
    on_disk = scan.geometry.slice_on_disk(index)
    return View(on_disk, score, *(radiological(picture, scan.geometry) for picture in (base, overlay)))


def radiological(picture: Picture, geometry: VolumeGeometry) -> Picture:
    """The picture with the patient's right on its left; sagittal slices stay as they are."""
    return picture if geometry.axis == SAGITTAL else np.ascontiguousarray(picture[:, ::-1])


def _shown_size(shape: Sequence[int], spacing: tuple[float, float, float] | None) -> tuple[int, int]:
    """Height and width of a picture with square pixels; its longer side is `LONGEST_SIDE`."""
    height, width = (length * size for length, size in zip(shape, spacing[1:] if spacing else (1.0, 1.0), strict=True))
    scale = LONGEST_SIDE / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resized(values: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize(size[::-1], Image.Resampling.BILINEAR))


def _overlay(scores: npt.NDArray[np.float32], calibration: Calibration, threshold: float) -> Picture:
    """Colour above the threshold for 10 % false positives, and an outline at ``threshold``; uint8 [H, W, 4]."""
    low, high = colour_range(calibration)
    share = np.clip((scores - low) / (high - low), 0, 1)
    colours: Picture = colormaps[COLOURS](share, bytes=True).copy()
    opacity = FAINTEST + (STRONGEST - FAINTEST) * share
    colours[..., 3] = np.round(255 * np.where(scores > low, opacity, 0))
    above = scores > threshold
    colours[above & ~ndimage.binary_erosion(above)] = (*OUTLINE, 255)
    return colours


def colour_range(calibration: Calibration) -> tuple[float, float]:
    """Scores of the darkest and of the brightest colour."""
    low, high = calibration.thresholds["fpr10"], calibration.thresholds["fpr01"]
    return low, low + COLOUR_REACH * ((high - low) or 1.0)
