"""Pictures of the slices that score highest: the scan, the map in colour above it, and where it exceeds a threshold.

Letters say on which side of the patient (R, L, A, P, S, I) the sides of a picture lie.

Axial and coronal slices are shown as radiologists see them: the patient's right is on the left of the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from dinodp.datasets.geometry import VolumeGeometry
from dinodp.datasets.volumes import to_grey
from dinodp.report.pictures import data_address
from dinodp.scans.detecting.calibration import Calibration
from dinodp.scans.detecting.healthy import bounds
from dinodp.scans.detecting.scoring import ScoredScan
from dinodp.scans.reading.scan import Scan

SAGITTAL = 0
MARGIN = 6  # pixels around the foreground
COLOURS, OUTLINE = "inferno", (86, 180, 233)
COLOUR_REACH = 4.0  # the brightest colour lies this many times (fpr01 - fpr10) above fpr10
FAINTEST, STRONGEST = 0.25, 0.8  # opacity at the ends of the colours
LONGEST_SIDE = 320  # pixels of a picture
LEGEND = 52  # pixels below it: place and score, colours, numbers
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
SIDES = ((0.0, 0.5, "lm"), (1.0, 0.5, "rm"), (0.5, 0.0, "mt"), (0.5, 1.0, "mb"))  # left, right, upper, lower
FONT = ImageFont.load_default(size=12)
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
    sides: Sequence[str]
    place: str


@dataclass(frozen=True)
class View:
    """One slice: ``index`` on disk, its score, ``base`` uint8 [H, W, 3] and ``overlay`` uint8 [H, W, 4].

    Of a volume, ``sides``: the letters of its left, right, upper and lower side, and ``place``: where it lies.
    """

    index: int
    score: float
    base: Picture
    overlay: Picture
    sides: Sequence[str] = ()
    place: str = ""

    def blended(self, scale: "Scale") -> Picture:
        """The overlay on the base, with the letters, and below them place, score and colours [H + LEGEND, W, 3]."""
        pixels = Image.fromarray(self.base).convert("RGBA")
        pixels.alpha_composite(Image.fromarray(self.overlay))
        found = Image.new("RGB", (pixels.width, pixels.height + LEGEND))
        found.paste(pixels.convert("RGB"))
        draw, (width, height) = ImageDraw.Draw(found), pixels.size
        for letter, (x, y, anchor) in zip(self.sides, SIDES, strict=False):
            place = (3 + x * (width - 6), 3 + y * (height - 6))
            draw.text(place, letter, WHITE, FONT, anchor, stroke_width=1, stroke_fill=BLACK)
        said = f"slice {self.index}, {self.place}, score {self.score:.4g}" if self.sides else f"score {self.score:.4g}"
        draw.text((3, height + 4), said, WHITE, FONT)
        scale.draw(found, height + 20)
        return np.asarray(found)

    def encoded(self) -> EncodedView:
        """The view as the gallery needs it."""
        base = data_address(Image.fromarray(self.base), "webp", {"quality": 85})
        overlay = data_address(Image.fromarray(self.overlay), "webp", {"lossless": True, "exact": False})
        height, width = self.base.shape[:2]
        return EncodedView(self.index, self.score, height, width, base, overlay, self.sides, self.place)


@dataclass(frozen=True)
class Scale:
    """Which scores the colours stand for, from the darkest to the brightest, and the threshold."""

    low: float
    high: float
    threshold: float

    @classmethod
    def of(cls, calibration: Calibration, threshold: float) -> "Scale":
        """From the darkest colour, at 10 % false positives, to well above the healthy scores."""
        low, high = calibration.thresholds["fpr10"], calibration.thresholds["fpr01"]
        return cls(low, low + COLOUR_REACH * ((high - low) or 1.0), threshold)

    @property
    def mark(self) -> float:
        """Where the threshold lies between the ends, 0 to 1; at an end, if it lies beyond."""
        return min(max((self.threshold - self.low) / (self.high - self.low), 0.0), 1.0)

    @property
    def colours(self) -> Picture:
        """The colours from low to high scores [1, 256, 3]."""
        colours: Picture = colormaps[COLOURS](np.linspace(0, 1, 256), bytes=True)[None, :, :3]
        return colours

    def draw(self, picture: Image.Image, top: int) -> None:
        """A bar of the colours below ``top``, with its ends and the threshold in numbers."""
        draw, left, right = ImageDraw.Draw(picture), 3, picture.width - 4
        bar = Image.fromarray(self.colours).resize((right - left + 1, 8))
        picture.paste(bar, (left, top + 2))
        mark = round(left + self.mark * (right - left))
        draw.line((mark, top - 1, mark, top + 12), OUTLINE, 2)
        draw.text((left, top + 14), f"{self.low:.3g}", WHITE, FONT)
        draw.text((right, top + 14), f"{self.high:.3g}", WHITE, FONT, "ra")
        draw.text((right / 2, top + 14), f"threshold {self.threshold:.3g}", OUTLINE, FONT, "ma")


def views(scored: ScoredScan, scale: Scale, n: int) -> list[View]:
    """Up to ``n`` slices in the order of the stack: the highest slice scores, not next to each other."""
    return [_view(scored, place, scale) for place in sorted(_highest(scored.slice_scores, n))]


def _highest(scores: npt.NDArray[np.float32], n: int) -> list[int]:
    """Places of the highest scores that are at least a tenth of the slices apart."""
    apart, found = max(1, len(scores) // 10), list[int]()
    for place in np.argsort(-scores, kind="stable").tolist():
        if all(abs(place - other) >= apart for other in found):
            found.append(place)
    return found[:n]


def _view(scored: ScoredScan, place: int, scale: Scale) -> View:
    scan, index = scored.scan, scored.chosen[place]
    rows, columns = shown_part(scan)
    grey = to_grey(scan.values[index][rows, columns], *scored.prepared.window)
    scores, counted = (values[index][rows, columns] for values in (scored.anomaly_map, scored.scored))
    size = shown_size(grey.shape[:2], scan.spacing)
    base = resized(grey if grey.ndim == 3 else np.repeat(grey[:, :, None], 3, axis=2), size)
    overlay = _overlay(resized(np.where(counted, scores, scores.min()), size), scale)
    score = float(scored.slice_scores[place])
    if scan.geometry is None:
        return View(0, score, base, overlay)
    geometry = scan.geometry
    base, overlay = (turned(picture, geometry) for picture in (base, overlay))
    where = f"{'xyz'[geometry.axis]} {geometry.place_of_slice(index):.1f} mm"
    return View(geometry.slice_on_disk(index), score, base, overlay, sides_of(geometry), where)


def shown_part(scan: Scan) -> tuple[slice, slice]:
    """Rows and columns of a volume's slices that are shown: the foreground with a margin; all of an image."""
    if scan.geometry is None:
        return slice(None), slice(None)
    rows, columns = (slice(max(0, first - MARGIN), last + 1 + MARGIN) for first, last in bounds(scan.foreground))
    return rows, columns


def sides_of(geometry: VolumeGeometry) -> tuple[str, str, str, str]:
    """The letters of the left, right, upper and lower side of what `turned` gives."""
    left, right, upper, lower = geometry.letters
    return (left, right, upper, lower) if geometry.axis == SAGITTAL else (right, left, upper, lower)


def turned(picture: Picture, geometry: VolumeGeometry) -> Picture:
    """The picture with the patient's right on its left; sagittal slices stay as they are."""
    return picture if geometry.axis == SAGITTAL else np.ascontiguousarray(picture[:, ::-1])


def shown_size(
    shape: Sequence[int], spacing: tuple[float, float, float] | None, longest: int = LONGEST_SIDE
) -> tuple[int, int]:
    """Height and width of a picture with square pixels; its longer side is ``longest``."""
    height, width = (length * size for length, size in zip(shape, spacing[1:] if spacing else (1.0, 1.0), strict=True))
    scale = longest / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resized(values: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Values [H, W] or [H, W, 3] interpolated to another size."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize(size[::-1], Image.Resampling.BILINEAR))


def _overlay(scores: npt.NDArray[np.float32], scale: Scale) -> Picture:
    """Colour above the low end of the scale, and an outline at its threshold; uint8 [H, W, 4]."""
    share = np.clip((scores - scale.low) / (scale.high - scale.low), 0, 1)
    colours: Picture = colormaps[COLOURS](share, bytes=True).copy()
    opacity = FAINTEST + (STRONGEST - FAINTEST) * share
    colours[..., 3] = np.round(255 * np.where(scores > scale.low, opacity, 0))
    above = scores > scale.threshold
    colours[above & ~ndimage.binary_erosion(above)] = (*OUTLINE, 255)
    return colours
