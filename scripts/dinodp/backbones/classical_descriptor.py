"""A hand-made patch descriptor: no download, no training, no randomness.

It is the floor that a learned backbone must beat: what it finds needs no pretrained features. It also lets the whole
pipeline run where no weights can be had. It knows nothing of where a patch lies in the image.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dinodp.backbones.base import on_device, patch_grid, require_resolution
from dinodp.backbones.preprocessing import preprocess

PATCH_SIZE = 14
SHAPE_WINDOWS = (14, 28, 56)  # pixels, centred on the patch: means and cosine coefficients
TEXTURE_WINDOWS = (14, 42)  # pixels: contrast, band energies, orientation, colour
ORDERS = 4  # cosine orders per axis; coefficients (u, v) with 1 <= u + v < ORDERS are kept
INTENSITY_CENTRES, INTENSITY_WIDTH = 9, 0.1
CONTRAST_CENTRES, CONTRAST_WIDTH = 5, 0.2
CONTRAST_FLOOR, CONTRAST_TOP = 0.01, 0.25  # in fractions of the intensity range
CONTRAST_WEIGHT, COSINE_WEIGHT, ORIENTATION_WEIGHT, COLOUR_WEIGHT = 0.5, 0.4, 0.3, 2.0
ENERGY_FLOOR = 1e-6  # a quarter of an 8-bit grey level, squared: rounding in flat regions stays unseen
COSINE_HALF = 0.05  # a coefficient of this size reaches half of its limit


class ClassicalBackbone:
    """Descriptor of a 14-pixel patch and its surroundings, 92 numbers.

    - intensity: mean over 14, 28 and 56 pixels, each as a population code (9 Gaussian bumps over [0, 1], unit length),
      so that a change of brightness turns the vector instead of stretching it: 27
    - shape: cosine (DCT-II) coefficients of low order over the same windows, compressed by c / (|c| + 0.05): 27
    - texture: standard deviation and energy of two band-pass filters over 14 and 42 pixels, on a logarithmic scale,
      each as a population code (5 bumps): 30
    - orientation: structure tensor over 14 and 42 pixels, (Jxx - Jyy, 2 Jxy) / trace: 4
    - colour: red-green and yellow-blue over 14 and 42 pixels, 0 in grey images: 4

    Windows that reach over the border see the border pixels repeated. Computed in float32.
    """

    def __init__(self, *, resolution: int, device: torch.device, square: bool = False) -> None:
        require_resolution(resolution, PATCH_SIZE, "classical")
        self.name = "classical"
        self.revision = "1"  # raise it whenever the descriptor changes
        self.patch_size = PATCH_SIZE
        self.resolution = resolution
        self.layers: tuple[int, ...] = (-1,)
        self.mean: tuple[float, ...] = (0.0, 0.0, 0.0)
        self.std: tuple[float, ...] = (1.0, 1.0, 1.0)
        self.square = square
        self.device = device
        n_cosines = ORDERS * (ORDERS + 1) // 2 - 1
        n_texture = 3 * CONTRAST_CENTRES + 4  # three energies; two numbers each for orientation and colour
        self.dim = len(SHAPE_WINDOWS) * (INTENSITY_CENTRES + n_cosines) + len(TEXTURE_WINDOWS) * n_texture
        self._operators: dict[tuple[int, int, int], torch.Tensor] = {}

    def prepare(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Resize and crop uint8 [H, W, 3] to float32 [3, H', W'] in [0, 1]."""
        return preprocess(image, self.resolution, PATCH_SIZE, self.mean, self.std, square=self.square)

    @torch.inference_mode()
    def embed(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Describe float [B, 3, H, W] in [0, 1]; returns float32 [B, rows, columns, 92]."""
        patch_grid(pixel_values, PATCH_SIZE)
        rgb = on_device(pixel_values, self.device).float()
        red, green, blue = rgb.unbind(1)
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        opponents = torch.stack([red - green, (red + green) / 2 - blue], dim=1)
        return torch.cat([*self._shape(grey), *self._texture(grey), *self._colour(opponents)], dim=-1)

    def provenance(self) -> dict[str, str]:
        """Name, version and settings of the descriptor."""
        return {
            "backbone": self.name,
            "revision": self.revision,
            "layers": "-1",
            "resolution": str(self.resolution),
            "square": str(self.square).lower(),
            "patch_size": str(PATCH_SIZE),
            "dtype": "float32",
        }

    def _shape(self, grey: torch.Tensor) -> list[torch.Tensor]:
        """Intensity codes and cosine coefficients of grey [B, H, W]: each [B, rows, columns, n]."""
        features = []
        for window in SHAPE_WINDOWS:
            cosines = self._pool(grey, window, ORDERS)
            features.append(_population_code(cosines[..., 0, 0], INTENSITY_CENTRES, INTENSITY_WIDTH))
            kept = [cosines[..., u, v] for u in range(ORDERS) for v in range(ORDERS - u) if u + v > 0]
            low = torch.stack(kept, dim=-1)
            features.append(COSINE_WEIGHT * low / (low.abs() + COSINE_HALF))
        return features

    def _texture(self, grey: torch.Tensor) -> list[torch.Tensor]:
        """Contrast codes and orientation of grey [B, H, W]: each [B, rows, columns, n]."""
        fine, coarse = _box_blur(grey, 3), _box_blur(grey, 9)
        centred = grey - 0.5  # fewer digits cancel in the variance
        maps = [centred.square(), centred, (grey - fine).square(), (fine - coarse).square(), *_structure_tensor(fine)]
        features = []
        for window in TEXTURE_WINDOWS:
            pooled = self._pool(torch.stack(maps, dim=1), window)
            square, mean, fine_energy, coarse_energy, xx, yy, xy = pooled.unbind(1)
            energies = torch.stack([square - mean.square(), fine_energy, coarse_energy], dim=-1)
            features.append(CONTRAST_WEIGHT * _contrast_code(energies))
            orientation = torch.stack([xx - yy, 2 * xy], dim=-1) / (xx + yy + 1e-5).unsqueeze(-1)
            features.append(ORIENTATION_WEIGHT * orientation)
        return features

    def _colour(self, opponents: torch.Tensor) -> list[torch.Tensor]:
        """Mean opponent colours of [B, 2, H, W]: each [B, rows, columns, 2]."""
        return [COLOUR_WEIGHT * self._pool(opponents, window).movedim(1, -1) for window in TEXTURE_WINDOWS]

    def _pool(self, maps: torch.Tensor, window: int, orders: int = 1) -> torch.Tensor:
        """Cosine coefficients of [..., H, W] in a window around each patch, as two matrix products.

        Returns [..., rows, columns, orders, orders]; with one order, the mean, [..., rows, columns].
        """
        height, width = maps.shape[-2:]
        down, across = self._operator(height, window, orders), self._operator(width, window, orders)
        pooled = torch.matmul(down, torch.matmul(maps, across.T))
        if orders == 1:
            return pooled
        rows, columns = height // PATCH_SIZE, width // PATCH_SIZE
        grid = pooled.reshape(*maps.shape[:-2], rows, orders, columns, orders)
        return grid.transpose(-3, -2)

    def _operator(self, length: int, window: int, orders: int) -> torch.Tensor:
        key = (length, window, orders)
        if key not in self._operators:
            self._operators[key] = _window_operator(length, window, orders).to(self.device)
        return self._operators[key]


def _window_operator(length: int, window: int, orders: int) -> torch.Tensor:
    """Matrix [length / 14 * orders, length]: cosines of order 0, 1, ... over a window centred on each patch.

    Row 0 of each patch is the mean; pixels beyond the border count for the border pixel.
    """
    patches = length // PATCH_SIZE
    offsets = torch.arange(window)
    phase = math.pi * (offsets.double() + 0.5) / window
    atoms = torch.stack([torch.cos(order * phase) for order in range(orders)]) / window
    operator = torch.zeros(patches, orders, length, dtype=torch.float64)
    for patch in range(patches):
        columns = (patch * PATCH_SIZE - (window - PATCH_SIZE) // 2 + offsets).clamp(0, length - 1)
        operator[patch].index_add_(1, columns, atoms)
    return operator.flatten(0, 1).float()


def _population_code(values: torch.Tensor, n_centres: int, width: float) -> torch.Tensor:
    """Gaussian bumps over [0, 1] of values [...], scaled to unit length: [..., n_centres]."""
    centres = torch.linspace(0.0, 1.0, n_centres, device=values.device)
    bumps = torch.exp(-0.5 * ((values.unsqueeze(-1) - centres) / width).square())
    return functional.normalize(bumps, dim=-1)


def _contrast_code(energies: torch.Tensor) -> torch.Tensor:
    """Population code of the root of energies [..., n] on a logarithmic scale: [..., n * CONTRAST_CENTRES]."""
    amplitude = (energies.clamp_min(0.0) + ENERGY_FLOOR).sqrt()
    level = torch.log1p(amplitude / CONTRAST_FLOOR) / math.log1p(CONTRAST_TOP / CONTRAST_FLOOR)
    return _population_code(level.clamp(max=1.0), CONTRAST_CENTRES, CONTRAST_WIDTH).flatten(-2)


def _box_blur(grey: torch.Tensor, size: int) -> torch.Tensor:
    """Mean over size x size pixels of [B, H, W], with the border pixels repeated."""
    padded = functional.pad(grey.unsqueeze(1), (size // 2,) * 4, mode="replicate")
    rows = functional.avg_pool2d(padded, (size, 1), stride=1)
    return functional.avg_pool2d(rows, (1, size), stride=1).squeeze(1)


def _structure_tensor(grey: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Products of the central differences of [B, H, W]: (xx, yy, xy), each [B, H, W]."""
    padded = functional.pad(grey.unsqueeze(1), (1, 1, 1, 1), mode="replicate").squeeze(1)
    horizontal = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    vertical = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    return horizontal.square(), vertical.square(), horizontal * vertical
