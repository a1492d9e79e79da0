"""Background left out: patches whose pixels are all black, as around a body that was cut out or padded."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dinodp.errors import InputError
from dinodp.families.base import FeatureOptions, MaskedSource, Source
from dinodp.families.holding_out import subjects_of
from dinodp.store import Maps

IMAGES_PER_READ = 8


class Placed(NamedTuple):
    """Embeddings float32 [B, row, col, D] and bool [B, row, col]: which of them are foreground."""

    tokens: torch.Tensor
    shown: torch.Tensor


def learnt_from(options: FeatureOptions, source: MaskedSource) -> Source:
    """What a model learns from: all of the source, or its foreground."""
    return ForegroundSource(source) if options.background == "leave_out" else source


class ForegroundSource:
    """The foreground patches of a source; images without any do not exist here."""

    def __init__(self, source: MaskedSource) -> None:
        counts = _foreground_counts(source)
        self._source, self._images = source, np.flatnonzero(counts)
        self._counts, self.dim = counts[self._images], source.dim
        self.n_images = len(self._images)
        self.n_patches = int(self._counts.mean()) if self.n_images else 0
        subjects = subjects_of(source)
        self.subjects = [subjects[image] for image in self._images]

    def count(self, images: Sequence[int]) -> int:
        """Number of embeddings of these images."""
        return int(self._counts[list(images)].sum())

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """Return float32 [1, 1, n, dim]: the foreground of the images, one after the other."""
        tokens, shown = self.placed(indices)
        return tokens[shown][None, None]

    def placed(self, indices: Sequence[int]) -> Placed:
        """Whole images, and which of their patches are foreground."""
        images = self._images[list(indices)].tolist()
        return Placed(self._source.read(images), self._source.foreground(images))


def placed(source: Source, indices: Sequence[int]) -> Placed:
    """Images of a source with every patch at its place. Raises InputError for images of several sizes."""
    if isinstance(source, ForegroundSource):
        found = source.placed(indices)
    else:
        tokens = source.read(indices)
        found = Placed(tokens, torch.ones(tokens.shape[:3], dtype=torch.bool))
    if len(found.tokens) != len(indices):
        raise InputError("This family compares places: all healthy images must have one size.")
    return found


def placed_chunks(source: Source, images: Sequence[int]) -> Iterator[Placed]:
    """`placed`, a few images at a time."""
    for start in range(0, len(images), IMAGES_PER_READ):
        yield placed(source, images[start : start + IMAGES_PER_READ])


def _foreground_counts(source: MaskedSource) -> npt.NDArray[np.int64]:
    """Foreground patches of each image [n_images]."""
    return np.array([int(source.foreground([index]).sum()) for index in range(source.n_images)], dtype=np.int64)


def lowered(maps: Maps, foreground: npt.NDArray[np.bool_]) -> Maps:
    """Patch scores {name: float32 [image, row, col]} with background just below the lowest of the image's foreground.

    Neighbours in an enlarged map so keep scores of their kind, and the value needs no other image. An image without
    foreground keeps its scores: nothing like it was learnt.
    """
    return {name: _lowered(values, foreground) for name, values in maps.items()}


def _lowered(values: npt.NDArray[np.float32], foreground: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    lowest = np.where(foreground, values, np.float32(np.inf)).min(axis=(1, 2), keepdims=True)
    below = np.nextafter(lowest, np.float32(-np.inf))
    return np.where(foreground | np.isinf(lowest), values, below).astype(np.float32)
