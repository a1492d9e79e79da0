"""Synthetic embeddings and images of the shapes that the paper has."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dinodp import store
from dinodp.models import MemoryBank

PER_CHUNK = 10**6  # embeddings of a bank that are made at once


def clustered(n: int, dim: int, seed: int = 0, n_clusters: int = 150, device: str = "cpu") -> torch.Tensor:
    """Unit vectors [n, dim] in clusters of unequal size and width; variance falls off along shared directions.

    On a GPU they are others than on a CPU, drawn by its own generator.
    """
    generator = torch.Generator(device).manual_seed(seed)
    fixed = torch.Generator().manual_seed(99)
    spectrum = torch.arange(1, dim + 1).float().rsqrt()
    centres = torch.randn(n_clusters, dim, generator=fixed) * spectrum
    basis = torch.linalg.qr(torch.randn(dim, dim, generator=fixed))[0]
    share = torch.rand(n_clusters, generator=fixed).square()
    widths = 0.1 + 0.4 * torch.rand(n_clusters, generator=fixed)
    centres, basis, share, widths = (part.to(device) for part in (centres, basis, share, widths))
    labels = torch.multinomial(share, n, replacement=True, generator=generator)
    noise = widths[labels, None] * torch.randn(n, dim, generator=generator, device=device) * spectrum.to(device)
    x = (centres[labels] + noise) @ basis
    return torch.nn.functional.normalize(x, dim=1)


def bank_of(n: int, dim: int, device: str) -> MemoryBank:
    """A memory bank of n clustered embeddings, made a million at a time on the device."""
    sizes = [min(PER_CHUNK, n - first) for first in range(0, n, PER_CHUNK)]
    parts = (clustered(size, dim, seed=1 + index, device=device) for index, size in enumerate(sizes))
    return MemoryBank(device).fit(parts, n)


def embeddings_file(path: Path, n_images: int, grid: int = 32, dim: int = 384, seed: int = 0) -> Path:
    """An embeddings file of clustered tokens, in one piece as the pipeline writes it."""
    tokens = clustered(64 * grid * grid, dim, seed).half().numpy().reshape(64, grid, grid, dim)
    with store.writing(path, "embeddings", {}) as file:
        data = file.create_dataset("tokens", (n_images, grid, grid, dim), "float16")
        for index in range(n_images):
            data[index] = np.roll(tokens[index % 64], index // 64, axis=0)
    return path


def slices(folder: Path, n: int, side: int = 240) -> list[Path]:
    """Smooth random grey PNG files."""
    rng, paths = np.random.default_rng(0), []
    for index in range(n):
        small = Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8))
        paths.append(folder / f"{index:05d}.png")
        small.resize((side, side), Image.Resampling.BICUBIC).save(paths[-1])
    return paths
