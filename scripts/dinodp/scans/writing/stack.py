"""All slices of a volume for the gallery: small pictures side by side in one, and the scores above them as levels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from dinodp.datasets.volumes import to_grey
from dinodp.report.pictures import data_address
from dinodp.scans.detecting.scoring import ScoredScan
from dinodp.scans.writing.views import Scale, resized, shown_part, shown_size, sides_of, turned

LONGEST_SIDE = 192  # pixels of a slice; with MOST_SLICES and QUALITY below 1 MB per volume
SCORE_SIDE = 96  # of its scores, which are smooth
MOST_SLICES = 128
QUALITY = 55
LEVELS = 255  # 0 is what was not scored; 1 to 255 the scores from the darkest colour to the brightest
LONG_BAR, SHORT_BAR = 50, 10  # mm
Levels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class EncodedStack:
    """``base`` and ``scores``: data: addresses of pictures that hold the slices in rows of ``columns``; ``indices`` on
    disk and ``places`` in mm of each; ``voxels`` at each level, of ``voxel_ml`` each; ``bar`` mm are ``bar_share`` of
    the width."""

    base: str
    scores: str
    height: int
    width: int
    columns: int
    indices: Sequence[int]
    places: Sequence[float]
    voxels: Sequence[int]
    voxel_ml: float
    bar: int
    bar_share: float
    axis: str
    sides: Sequence[str]
    first: int  # which of the slices is shown first: the one that scores highest


def stack_of(scored: ScoredScan, scale: Scale) -> EncodedStack | None:
    """The slices that were scored, at most `MOST_SLICES`, evenly spaced; None of an image."""
    scan, geometry = scored.scan, scored.scan.geometry
    if geometry is None:
        return None
    rows, columns = shown_part(scan)
    kept = np.unique(np.linspace(0, len(scored.chosen) - 1, MOST_SLICES).round().astype(int)).tolist()
    chosen = [scored.chosen[place] for place in kept]
    grey = [to_grey(scan.values[index][rows, columns], *scored.prepared.window) for index in chosen]
    levels = levels_of(scored, scale)
    size, small = (shown_size(grey[0].shape[:2], scan.spacing, side) for side in (LONGEST_SIDE, SCORE_SIDE))
    across = int(np.ceil(np.sqrt(len(chosen))))
    field = grey[0].shape[1] * geometry.spacing[2]
    bar = LONG_BAR if field > 2 * LONG_BAR else SHORT_BAR
    return EncodedStack(
        base=_sheet([turned(resized(item, size), geometry) for item in grey], across, {"quality": QUALITY}),
        scores=_sheet(
            [turned(resized(levels[index][rows, columns], small), geometry) for index in chosen],
            across,
            {"lossless": True},
        ),
        height=size[0],
        width=size[1],
        columns=across,
        indices=[geometry.slice_on_disk(index) for index in chosen],
        places=[round(geometry.place_of_slice(index), 1) for index in chosen],
        voxels=np.bincount(levels[scored.scored], minlength=LEVELS + 1).tolist(),
        voxel_ml=geometry.voxel_ml,
        bar=bar,
        bar_share=bar / field,
        axis="xyz"[geometry.axis],
        sides=sides_of(geometry),
        first=int(np.argmax(scored.slice_scores[kept])),
    )


def levels_of(scored: ScoredScan, scale: Scale) -> Levels:
    """Scores as levels [slice, H, W]: level L is reached at (L - 1) / 254 of the way from the darkest colour."""
    share = np.clip((scored.anomaly_map - scale.low) / (scale.high - scale.low), 0, 1)
    return np.where(scored.scored, 1 + np.floor(share * (LEVELS - 1)), 0).astype(np.uint8)


def _sheet(tiles: Sequence[Levels], across: int, options: dict[str, object]) -> str:
    """The tiles [H, W] row by row in one picture."""
    height, width = tiles[0].shape
    sheet = np.zeros((-(-len(tiles) // across) * height, across * width), dtype=np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // across * height, number % across * width
        sheet[top : top + height, left : left + width] = tile
    return data_address(Image.fromarray(sheet), "webp", options)

