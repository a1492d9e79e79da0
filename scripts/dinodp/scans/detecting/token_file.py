"""Keep the embeddings of a fit on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from dinodp.errors import InputError


class TokenFile:
    """Embeddings of many pictures in a temporary file, float16, read back picture by picture.

    A source for the families of models; pictures may have patch grids of different sizes, of which ``n_patches`` is the
    mean.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._starts, self.dim = path, [0], 0
        self.grids: list[tuple[int, int]] = []
        self.subjects: list[str] = []  # whose each picture is
        self.counts: list[int] = []  # pictures of each scan, where its writer says
        self._foreground: list[torch.Tensor] = []
        self.n_images, self.n_patches = 0, 0
        self.is_constant = True  # so far: each embedding is the same
        self._example: npt.NDArray[np.float16] | None = None
        self._file = path.open("wb")

    def append(self, tokens: torch.Tensor, foreground: torch.Tensor, subject: str) -> int:
        """Add tokens [B, row, col, D] of a subject, and which of them show foreground, bool [B, row, col].

        Returns how many pictures they are, B.
        """
        stored = tokens.half().cpu().numpy()
        if not np.isfinite(stored).all():
            raise InputError("The backbone gave embeddings that are not finite, or above 65504, the most of float16.")
        self.is_constant = self.is_constant and bool((stored == self._first(stored)).all())
        self.dim = stored.shape[-1]
        self._foreground.extend(foreground)
        self.subjects.extend([subject] * len(tokens))
        for picture in stored:
            self._file.write(np.ascontiguousarray(picture).tobytes())
            self.grids.append((picture.shape[0], picture.shape[1]))
            self._starts.append(self._starts[-1] + picture.shape[0] * picture.shape[1])
            self.n_images += 1
        self.n_patches = self._starts[-1] // self.n_images
        self._file.flush()
        return len(tokens)

    def _first(self, stored: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
        """The first embedding [D] of all."""
        if self._example is None:
            self._example = stored[0, 0, 0].copy()
        return self._example

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """The embeddings of these pictures as float32 [B, row, col, D], or [1, 1, n, D] where their grids differ."""
        stored = np.memmap(self.path, dtype=np.float16, mode="r").reshape(-1, self.dim)
        parts = [stored[self._starts[index] : self._starts[index + 1]] for index in indices]
        tokens, grids = torch.from_numpy(np.concatenate(parts)).float(), {self.grids[index] for index in indices}
        return tokens.reshape(-1, *grids.pop(), self.dim) if len(grids) == 1 else tokens[None, None]

    def count(self, images: Sequence[int]) -> int:
        """Number of embeddings of these pictures."""
        return sum(self._starts[index + 1] - self._starts[index] for index in images)

    def foreground(self, indices: Sequence[int]) -> torch.Tensor:
        """Which patches of these pictures show foreground, bool in the shape of what `read` gives."""
        parts, grids = [self._foreground[index] for index in indices], {self.grids[index] for index in indices}
        return torch.stack(parts) if len(grids) == 1 else torch.cat([part.flatten() for part in parts])[None, None]

    def close(self) -> None:
        self._file.close()
