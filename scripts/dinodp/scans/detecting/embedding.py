"""Embed pictures in batches as large as memory allows, and keep the embeddings of a fit on disk."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from dinodp.backbones import Backbone
from dinodp.errors import InputError
from dinodp.jobs.logs import logger

Picture = npt.NDArray[np.uint8]
FIRST_BATCH = {"cpu": 4, "cuda": 32}
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


class Embedder:
    """Embeds pictures; the batch size halves when memory runs out, down to one, and stays there.

    ``batch_size`` None starts at 4 on a CPU, where larger ones gain nothing, and at 32 on a GPU.
    """

    def __init__(self, backbone: Backbone, batch_size: int | None = None) -> None:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"The batch size is {batch_size}; it must be at least 1.")
        device = getattr(backbone, "device", torch.device("cpu"))
        self.backbone, self.device = backbone, device
        self.batch_size = batch_size or FIRST_BATCH.get(device.type, 4)

    def embed(self, pictures: Iterable[Picture]) -> Iterator[torch.Tensor]:
        """Yield unit embeddings float32 [B, row, col, D] in order, on the backbone's device.

        Pictures are uint8 [H, W, 3]; those of one batch have one size. Raises InputError when one alone is too large.
        """
        waiting: list[torch.Tensor] = []
        for picture in pictures:
            pixels = self.backbone.prepare(picture)
            if waiting and pixels.shape != waiting[0].shape:
                yield from self._flush(waiting)
            waiting.append(pixels)
            while len(waiting) >= self.batch_size:
                yield self._run(waiting)
        yield from self._flush(waiting)

    def _flush(self, waiting: list[torch.Tensor]) -> Iterator[torch.Tensor]:
        while waiting:
            yield self._run(waiting)

    def _run(self, waiting: list[torch.Tensor]) -> torch.Tensor:
        """Embed the first pictures of ``waiting`` and take them off it."""
        while True:
            batch = torch.stack(waiting[: self.batch_size])
            try:
                tokens = functional.normalize(self.backbone.embed(batch), dim=-1)
            except RuntimeError as error:
                if not any(text in str(error).lower() for text in OUT_OF_MEMORY):
                    raise
                self._halve(batch)
                continue
            del waiting[: self.batch_size]
            return tokens

    def _halve(self, batch: torch.Tensor) -> None:
        if len(batch) == 1:
            size = " x ".join(map(str, batch.shape[2:]))
            raise InputError(f"One image of {size} pixels does not fit into memory: lower --resolution.")
        self.batch_size = max(1, len(batch) // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.info("Memory is short: batches of %d images from here on.", self.batch_size)


class TokenFile:
    """Embeddings of many pictures in a temporary file, float16, read back picture by picture.

    A source for `dinodp.models.fit_mixture`; pictures may have patch grids of different sizes.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._starts, self.dim = path, [0], 0
        self._grids: list[tuple[int, int]] = []
        self.n_images = 0
        self._file = path.open("wb")

    def append(self, tokens: torch.Tensor) -> None:
        """Add tokens [B, row, col, D]."""
        stored = tokens.half().cpu().numpy()
        if not np.isfinite(stored).all():
            raise InputError("The backbone gave embeddings that are not finite.")
        self.dim = stored.shape[-1]
        for picture in stored:
            self._file.write(np.ascontiguousarray(picture).tobytes())
            self._grids.append((picture.shape[0], picture.shape[1]))
            self._starts.append(self._starts[-1] + picture.shape[0] * picture.shape[1])
            self.n_images += 1
        self._file.flush()

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """The embeddings of these pictures as float32 [1, 1, n, D]."""
        stored = np.memmap(self.path, dtype=np.float16, mode="r").reshape(-1, self.dim)
        parts = [stored[self._starts[index] : self._starts[index + 1]] for index in indices]
        return torch.from_numpy(np.concatenate(parts)).float()[None, None]

    def picture(self, index: int) -> torch.Tensor:
        """The embeddings of one picture as float32 [1, row, col, D]."""
        return self.read([index]).reshape(1, *self._grids[index], self.dim)

    def close(self) -> None:
        self._file.close()
