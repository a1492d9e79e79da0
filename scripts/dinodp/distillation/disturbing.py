"""Normal images with disturbed parts, so that a student learns what its teacher says of what is not normal.

Pictures are float32 [3, H, W] in [0, 1]. What is black stays black. No lesion of any data set is imitated: parts of
random shape are exchanged with another image, brightened, blurred, made noisy or flat.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

MOST_PARTS = 3  # disturbed parts of a picture
CELLS = (5, 22)  # along a side, of the noise whose level sets are the parts
BLACK = 0.02


def disturbed(picture: torch.Tensor, others: Sequence[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    """A picture, half of the time mirrored or of another gradation, with up to three disturbed parts."""
    if _number(generator, 0, 1) < 0.5:
        picture = picture.flip(2)
    if _number(generator, 0, 1) < 0.5:
        picture = picture ** _number(generator, 0.7, 1.4) * _number(generator, 0.8, 1.15)
    shown = (picture > BLACK).any(0).float()
    for _ in range(_whole(generator, 0, MOST_PARTS + 1)):
        part = _part(picture.shape[1:], generator) * shown
        picture = part * _other_look(picture, others, generator) + (1 - part) * picture
    return picture.clamp(0, 1)


def _part(size: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Soft mask [H, W] of what lies above a level of smooth noise."""
    cells = _whole(generator, *CELLS)
    noise = torch.randn(1, 1, cells, cells, generator=generator)
    smooth = functional.interpolate(noise, size=tuple(size), mode="bicubic", align_corners=False)[0, 0]
    return torch.sigmoid((smooth - _number(generator, 0.8, 2.0)) * _number(generator, 4, 16))


def _other_look(picture: torch.Tensor, others: Sequence[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    """What a part of a picture becomes: one of five looks."""
    looks = (_exchanged, _brighter, _blurred, _noisy, _flat)
    return looks[_whole(generator, 0, len(looks))](picture, others, generator)


def _exchanged(picture: torch.Tensor, others: Sequence[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    other = others[_whole(generator, 0, len(others))]
    shifts = [_whole(generator, -side // 4, side // 4 + 1) for side in other.shape[1:]]
    return other.roll(shifts, (1, 2))


def _brighter(picture: torch.Tensor, others: Sequence[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    return picture + _number(generator, -0.6, 0.6)


def _blurred(picture: torch.Tensor, others: Sequence[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    height, width = picture.shape[1:]
    factor = _whole(generator, 8, 17)
    small = functional.adaptive_avg_pool2d(picture[None], (max(1, height // factor), max(1, width // factor)))
    return functional.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)[0]


def _noisy(picture: torch.Tensor, others: Sequence[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    height, width = picture.shape[1:]
    noise = torch.randn(1, 1, (height + 1) // 2, (width + 1) // 2, generator=generator)
    grain = functional.interpolate(noise, size=(height, width), mode="bilinear", align_corners=False)[0]
    return picture + _number(generator, 0.05, 0.2) * grain


def _flat(picture: torch.Tensor, others: Sequence[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    return torch.full_like(picture, _number(generator, 0, 1))


def _number(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(1, generator=generator))


def _whole(generator: torch.Generator, low: int, high: int) -> int:
    """From ``low`` to ``high`` - 1."""
    return int(torch.randint(low, high, (1,), generator=generator))
