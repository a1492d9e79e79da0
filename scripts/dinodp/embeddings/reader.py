"""Read patch embeddings as a model sees them."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import h5py
import torch
import torch.nn.functional as functional

from dinodp import store
from dinodp.embeddings.cache import TokenRows
from dinodp.errors import InputError, require_known
from dinodp.jobs.origin import AGAIN

# splits may be of different machines
ACCIDENTAL = ("library_digest", "package_versions", "dtype", "engine", store.MADE_FOR)
RESAMPLING = ("after_normalisation", "before_normalisation")


class EmbeddingReader:
    """Embeddings of one split as a model sees them: L2-normalised if asked, and resampled bilinearly to ``grid``.

    ``resample``: ``after_normalisation`` as in the paper, which leaves vectors that are no longer exactly of unit
    length, or ``before_normalisation``. ``rows`` restricts the file to some images (for example the normal ones).
    ``digest`` is that of the file's content, ``made_from`` those of its inputs, ``made_by`` also backbone and options.
    Raises InputError when the file is missing or holds something else, has fewer images than ``rows`` names, and, when
    an image is first read, where its embeddings are damaged.
    """

    def __init__(
        self,
        path: Path,
        *,
        normalise: bool = True,
        grid: tuple[int, int] | None = (32, 32),
        rows: Sequence[int] | None = None,
        resample: str = "after_normalisation",
        cache: str = "none",
    ) -> None:
        require_known("order of resampling", resample, RESAMPLING)
        with store.reading(path, "embeddings") as file:
            shape = file["tokens"].shape
            self.made_from, self.made_by = store.inputs_of(file), _made_by(file)
            digests = store.image_digests(file)
        self.digest, self.n_stored = store.digest_of(path), int(shape[0])
        self.path, self.normalise, self.grid, self.resample = path, normalise, grid, resample
        self.rows = list(range(shape[0])) if rows is None else list(rows)
        self.n_images, self.dim = len(self.rows), int(shape[3])
        self.n_patches = (grid[0] * grid[1]) if grid else int(shape[1] * shape[2])
        if self.rows and max(self.rows) >= self.n_stored:
            raise InputError(f"{path} holds {self.n_stored} images, but image {max(self.rows)} is asked for: {AGAIN}.")
        self._tokens = TokenRows(path, self.rows, cache, digests)

    def seen(self) -> dict[str, object]:
        """What, beside the file, decides which numbers are read."""
        return {"normalise": self.normalise, "grid": self.grid, "resample": self.resample, "rows": self.rows}

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """Return float32 [len(indices), row, col, dim] of the images with these indices."""
        raw = torch.from_numpy(self._tokens.read(indices)).float()
        early = self.resample == "before_normalisation"
        x = self._to_grid(raw) if early else raw
        if self.normalise:  # in place, to the same bits as torch's normalize
            x.div_(x.norm(dim=-1, keepdim=True).clamp_min_(1e-12))
        return x if early else self._to_grid(x)

    def count(self, images: Sequence[int]) -> int:
        """Number of embeddings of these images."""
        return len(images) * self.n_patches

    def foreground(self, indices: Sequence[int]) -> torch.Tensor:
        """Bool [len(indices), row, col]: which patches show anything that is not black.

        A patch of another ``grid`` does when any patch of the backbone that it touches does. Raises InputError when the
        file does not know.
        """
        shown = self._foreground[[self.rows[index] for index in indices]]
        return on_grid(shown, self.grid or (shown.shape[1], shown.shape[2]))

    @cached_property
    def _foreground(self) -> torch.Tensor:
        """Of the whole file, on the backbone's grid."""
        with store.reading(self.path, "embeddings") as file:
            if store.FOREGROUND not in file:
                raise InputError(f"{self.path} does not say what is background: remove it, and it is made anew.")
            return torch.from_numpy(file[store.FOREGROUND][()].astype(bool))

    def _to_grid(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens if self.grid is None or tuple(tokens.shape[1:3]) == self.grid else _resample(tokens, self.grid)


def _made_by(file: h5py.File) -> dict[str, str]:
    """Data, backbone and options: the same for all splits of an embedding."""
    return {str(name): str(value) for name, value in file.attrs.items() if name not in ACCIDENTAL}


def on_grid(shown: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Bool [B, *grid] of pixels or patches bool [B, H, W]: where any that a place of the grid touches is true."""
    (height, width), (rows, columns) = shown.shape[1:], grid
    if height % rows or width % columns:
        return functional.adaptive_max_pool2d(shown[:, None].float(), grid)[:, 0] > 0
    # places of equal size that do not overlap: no copy in float32
    return shown.reshape(-1, rows, height // rows, width).any(2).view(-1, rows, columns, width // columns).any(3)


def _resample(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Bilinear resampling of [B, row, col, dim] to [B, *grid, dim]."""
    channels_first = tokens.permute(0, 3, 1, 2)
    resized = functional.interpolate(channels_first, size=grid, mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1).contiguous()
