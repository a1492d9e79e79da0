"""What a model sees of the embeddings: principal axes of the training split, and the position in the image."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from dinodp.errors import InputError
from dinodp.families.base import EmbeddingSource, FeatureOptions
from dinodp.families.holding_out import subjects_of
from dinodp.families.soundness import Layout, Stored
from dinodp.jobs.logs import progress
from dinodp.models.components import finite_matrix

IMAGES_PER_READ = 8
EPS = 1e-5  # rounding of a unit vector
APPENDED_DIMS = 16  # length of an appended position vector: four frequencies, sine and cosine, two axes


def chunks(source: EmbeddingSource, images: Sequence[int] | None = None) -> Iterator[torch.Tensor]:
    """Embeddings [n, D] of the images (default: all) of a source, a few images at a time."""
    chosen = range(source.n_images) if images is None else images
    for start in range(0, len(chosen), IMAGES_PER_READ):
        yield source.read(chosen[start : start + IMAGES_PER_READ]).flatten(0, 2)


class Features:
    """Embeddings [..., D] to features [..., d]; without options the embeddings themselves.

    ``axes`` [D, d]: the leading axes of the training split's second moment about the origin, so that lengths and cosine
    similarities are kept as well as d numbers can. ``options.position``: a sinusoidal code of the patch's place is
    appended to the vector, or added to it.
    """

    def __init__(self, options: FeatureOptions, axes: torch.Tensor | None = None) -> None:
        self.axes, self.position, self.weight = axes, options.position, options.position_weight

    @classmethod
    def fit(cls, options: FeatureOptions, train: EmbeddingSource) -> "Features":
        """The features that options ask for. Raises InputError for more axes than dimensions."""
        return cls(options, None if options.pca_dims is None else principal_axes(train, options.pca_dims))

    @classmethod
    def load(cls, options: FeatureOptions, state: Mapping[str, Any]) -> "Features":
        """The features that a model file was fitted with."""
        return cls(options, torch.from_numpy(state["feature_axes"]) if "feature_axes" in state else None)

    @staticmethod
    def layout(options: FeatureOptions, dim: int) -> tuple[Layout, int]:
        """What of the features a model file holds, and the length of a feature, for embeddings of ``dim`` numbers."""
        kept = dim if options.pca_dims is None else options.pca_dims
        axes = {} if options.pca_dims is None else {"feature_axes": Stored((dim, kept), -1 - EPS, 1 + EPS)}
        return axes, kept + (APPENDED_DIMS if options.position == "appended" else 0)

    @property
    def state(self) -> dict[str, npt.NDArray[np.float32]]:
        """What a model file must hold."""
        return {} if self.axes is None else {"feature_axes": self.axes.numpy()}

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Features float32 [B, row, col, d] of embeddings [B, row, col, D]."""
        x = tokens if self.axes is None else tokens @ self.axes.to(tokens.device)
        if self.position is None:
            return x
        dims = APPENDED_DIMS if self.position == "appended" else int(x.shape[-1])
        code = self.weight * position_code(int(x.shape[1]), int(x.shape[2]), dims).to(x.device)
        if self.position == "added":
            return x + code
        return torch.cat([x, code.expand(len(x), -1, -1, -1)], dim=-1)

    def of(self, source: Any) -> Any:
        """A source of embeddings as a source of these features."""
        return FeatureSource(source, self) if self._changes() else source

    def before(self, model: Any) -> Any:
        """A model of features as one that scores embeddings."""
        return FeatureModel(model, self) if self._changes() else model

    def _changes(self) -> bool:
        return self.axes is not None or self.position is not None


class FeatureSource:
    """Features of the images of a source, read a few at a time."""

    def __init__(self, source: Any, features: Features) -> None:
        self._source, self._features = source, features
        self.n_images, self.n_patches = source.n_images, source.n_patches
        dim = source.dim if features.axes is None else int(features.axes.shape[1])
        self.dim = dim + (APPENDED_DIMS if features.position == "appended" else 0)
        self.subjects = subjects_of(source)

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """Return float32 [len(indices), row, col, dim]."""
        return self._features(self._source.read(indices))

    def count(self, images: Sequence[int]) -> int:
        """Number of embeddings of these images."""
        return int(self._source.count(images))

    def foreground(self, indices: Sequence[int]) -> torch.Tensor:
        """Bool [len(indices), row, col]: which patches are not background."""
        shown: torch.Tensor = self._source.foreground(indices)
        return shown


class FeatureModel:
    """A fitted model behind its features; everything else is the model's own."""

    def __init__(self, model: Any, features: Features) -> None:
        self._model, self._features = model, features

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame, *shown: torch.Tensor) -> Any:
        """Patch scores of a batch of images, whose manifest rows are ``rows``; ``shown``: `PlacedModel`."""
        return self._model.score(self._features(tokens), rows, *shown)

    def image_scores(self, tokens: torch.Tensor, maps: Any, *shown: torch.Tensor) -> Any:
        """Image scores of a `PlacedModel`."""
        return self._model.image_scores(self._features(tokens), maps, *shown)


def principal_axes(train: EmbeddingSource, dims: int) -> torch.Tensor:
    """Leading eigenvectors [D, dims] of the mean of x x' over the training split, each with its largest entry positive.

    Raises InputError when ``dims`` is not between 1 and D, and for embeddings that are not finite.
    """
    total, count = torch.zeros((), dtype=torch.float64), 0
    for part in progress(chunks(train), "PCA", total=train.n_images, per_item=IMAGES_PER_READ):
        x = finite_matrix(part).double()
        total, count = total + x.T @ x, count + len(x)
    moment = total / count
    if not 1 <= dims <= len(moment):
        raise InputError(f"pca_dims is {dims}; it must be between 1 and {len(moment)}, the length of an embedding.")
    axes: torch.Tensor = torch.linalg.eigh(moment)[1].flip(1)[:, :dims]
    largest = axes.abs().argmax(dim=0)
    signs = axes[largest, torch.arange(dims)].sign()
    return (axes * signs).float().contiguous()


def position_code(rows: int, columns: int, dims: int) -> torch.Tensor:
    """Unit vectors [rows, columns, dims] that vary smoothly with the place: sine and cosine of both coordinates.

    The frequencies are 1, 2, 3 and 4 half periods over the image (fewer in under 16 dimensions); unused entries are 0.
    """
    frequencies = torch.pi * torch.arange(1, max(2, min(dims // 4, 4) + 1))
    down, across = ((torch.arange(n) + 0.5) / n for n in (rows, columns))
    waves = [
        torch.cat([torch.sin(place[:, None] * frequencies), torch.cos(place[:, None] * frequencies)], dim=1)
        for place in (down, across)
    ]
    grid = torch.cat(
        [waves[0][:, None].expand(-1, columns, -1), waves[1][None].expand(rows, -1, -1)], dim=2
    )[..., :dims]  # fmt: skip
    code = torch.zeros(rows, columns, dims)
    code[..., : grid.shape[2]] = grid
    return torch.nn.functional.normalize(code, dim=2)
