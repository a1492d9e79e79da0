"""Drawing of the phantoms: one subject's anatomy, its slices, and lesions. Lengths are fractions of the image side."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Picture = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

GREY, WHITE, FLUID, SKULL, NUCLEI = 0.42, 0.58, 0.15, 0.85, 0.48
LESIONS = ("bright", "dark", "ring", "spots", "mixed")
RADIUS = {
    "bright": (0.03, 0.09),
    "dark": (0.03, 0.09),
    "ring": (0.05, 0.1),
    "spots": (0.012, 0.025),
    "mixed": (0.06, 0.12),
}


@dataclass(frozen=True)
class Anatomy:
    """What makes one subject differ from another."""

    width: float
    height: float
    tilt: float  # radians
    folds: npt.NDArray[np.float64]  # amplitude and phase of the cortex's folds, [n, 2]
    ventricle: float
    gain: float

    @classmethod
    def draw(cls, generator: np.random.Generator) -> Self:
        """A subject from the healthy population."""
        folds = np.stack([generator.uniform(0.004, 0.012, 6), generator.uniform(0, 2 * np.pi, 6)], axis=1)
        return cls(
            width=generator.uniform(0.31, 0.36),
            height=generator.uniform(0.38, 0.43),
            tilt=generator.normal(0, 0.05),
            folds=folds,
            ventricle=generator.uniform(0.8, 1.3),
            gain=generator.uniform(0.92, 1.08),
        )


def draw_slice(anatomy: Anatomy, level: float, size: int, generator: np.random.Generator) -> tuple[Picture, Mask]:
    """One axial slice; ``level`` in [0, 1] runs from low to high in the head.

    Returns the picture [size, size] (about 0 to 1) and where brain tissue is [size, size].
    """
    x, y = _coordinates(anatomy, size)
    scale = 0.86 + 0.14 * np.sin(np.pi * (0.25 + 0.5 * level))
    angle = np.arctan2(y, x)
    radius = np.hypot(x / anatomy.width, y / anatomy.height) / scale
    waves = sum(a * np.cos(k * angle + p) for k, (a, p) in zip(range(9, 33, 4), anatomy.folds, strict=True))
    cortex = radius + 4.0 * waves
    picture = np.zeros((size, size))
    picture[radius < 1.17] = 0.3  # scalp
    picture[radius < 1.12] = SKULL
    picture[radius < 1.05] = FLUID
    brain = cortex < 1.0
    picture[brain] = GREY
    picture[cortex < 0.86] = WHITE
    for sign in (-1, 1):
        nucleus = _ellipse(x, y, sign * 0.09, 0.02, 0.035, 0.06) < 1
        picture[nucleus & brain] = NUCLEI
        grown = anatomy.ventricle * (1.25 - 0.8 * abs(level - 0.5))
        ventricle = _ellipse(x, y, sign * 0.035, -0.03, 0.02 * grown, 0.085 * grown) < 1
        picture[ventricle] = FLUID
        brain &= ~ventricle
    picture[(np.abs(x) < 0.004) & (np.abs(y) > 0.16) & brain] = FLUID  # the fissure between the hemispheres
    return _acquire(picture * anatomy.gain, generator), brain


def _coordinates(anatomy: Anatomy, size: int) -> tuple[Picture, Picture]:
    axis = (np.arange(size) + 0.5) / size - 0.5
    y, x = np.meshgrid(axis, axis, indexing="ij")
    cos, sin = np.cos(anatomy.tilt), np.sin(anatomy.tilt)
    return cos * x + sin * y, cos * y - sin * x


def _ellipse(x: Picture, y: Picture, cx: float, cy: float, rx: float, ry: float) -> Picture:
    return np.hypot((x - cx) / rx, (y - cy) / ry)


def _noise(shape: tuple[int, ...], sigma: float, generator: np.random.Generator) -> Picture:
    """Smooth noise of unit standard deviation."""
    smooth: Picture = ndimage.gaussian_filter(generator.standard_normal(shape), sigma, mode="wrap")
    unit: Picture = smooth / smooth.std()
    return unit


def _acquire(picture: Picture, generator: np.random.Generator) -> Picture:
    """Blur, tissue texture, a smooth bias field and the magnitude (Rician) noise of an MR image."""
    size = picture.shape[0]
    blurred = ndimage.gaussian_filter(picture, size / 256)
    textured = blurred * (1 + 0.03 * _noise(picture.shape, size / 96, generator))
    biased = textured * (1 + 0.05 * _noise(picture.shape, size / 4, generator))
    real, imaginary = 0.015 * generator.standard_normal((2, *picture.shape))
    magnitude: Picture = np.hypot(biased + real, imaginary)
    return magnitude


def draw_lesion(picture: Picture, tissue: Mask, kind: str, generator: np.random.Generator) -> tuple[Picture, Mask]:
    """Implant one lesion (several for "spots") of a kind in `LESIONS`; returns picture and mask, both [size, size]."""
    size = picture.shape[0]
    mask = np.zeros_like(tissue)
    inside = ndimage.distance_transform_edt(tissue)
    for _ in range(generator.integers(4, 9) if kind == "spots" else 1):
        low, high = RADIUS[kind]
        radius = generator.uniform(low, high) * size
        places = np.argwhere(inside >= min(0.8 * radius, 0.7 * inside.max()))
        mask |= _blob(picture.shape, places[generator.integers(len(places))], radius, generator) & tissue
    soft = ndimage.gaussian_filter(mask.astype(float), size / 256)
    return picture * (1 - soft) + soft * _filling(picture, mask, kind, generator), mask


def _blob(shape: tuple[int, ...], centre: npt.NDArray[np.int64], radius: float, generator: np.random.Generator) -> Mask:
    """A round shape with an irregular rim."""
    rows, columns = np.indices(shape)
    angle = np.arctan2(rows - centre[0], columns - centre[1])
    amplitude, phase = generator.uniform(0.02, 0.12, 3), generator.uniform(0, 2 * np.pi, 3)
    rim = 1 + sum(a * np.cos(k * angle + p) for k, a, p in zip((2, 3, 5), amplitude, phase, strict=True))
    blob: Mask = np.hypot(rows - centre[0], columns - centre[1]) < radius * rim
    return blob


def _filling(picture: Picture, mask: Mask, kind: str, generator: np.random.Generator) -> Picture:
    """Intensities of the lesion [size, size]; only those inside the mask are used."""
    contrast = generator.uniform(0.18, 0.35)
    if kind in ("bright", "spots"):
        return picture + contrast
    if kind == "dark":
        return picture - 0.8 * contrast
    if kind == "mixed":
        return 0.5 + 0.2 * _noise(picture.shape, picture.shape[0] / 64, generator)
    depth = ndimage.distance_transform_edt(mask)
    return np.where(depth < max(2.0, 0.35 * depth.max()), WHITE + contrast, FLUID)
