"""The one embedding loop: pictures in, batches of patch embeddings out."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from dinodp.backbones import Backbone
from dinodp.embeddings.reader import on_grid
from dinodp.errors import InputError, ran_out_of_memory
from dinodp.jobs.logs import logger
from dinodp.jobs.prefetch import prefetched

Item = TypeVar("Item")
Picture = npt.NDArray[np.uint8]
Prepared = tuple[torch.Tensor, torch.Tensor]  # pixels, and which of them are not black
FIRST_BATCH = {"cpu": 4}  # on a CPU larger ones gain nothing
FIRST_GPU_BATCH = 32
PINNED = ("cuda", "xpu")  # devices that copy from pinned memory while they compute
BLACK = np.zeros((64, 64, 3), dtype=np.uint8)  # at least a patch


class Embedder:
    """Embeds pictures batch by batch while ``workers`` threads decode and prepare the next ones.

    Batches are whole ones of ``batch_size`` pictures (None: 4 on a CPU, 32 on a GPU). Where memory runs out a batch is
    halved, down to one picture, and ``batch_size`` stays there; the last bits of embeddings may depend on it.
    """

    def __init__(self, backbone: Backbone, batch_size: int | None = None, workers: int = 2) -> None:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"The batch size is {batch_size}; it must be at least 1.")
        device = getattr(backbone, "device", torch.device("cpu"))
        self.backbone, self.device, self.workers = backbone, device, workers
        self.batch_size = batch_size or FIRST_BATCH.get(device.type, FIRST_GPU_BATCH)

    def embed(self, pictures: Iterable[Picture]) -> Iterator[torch.Tensor]:
        """Yield raw embeddings float32 [B, row, col, D] of pictures uint8 [H, W, 3], in order, on the device.

        A picture of another size starts a new batch. Raises InputError when one alone is too large for the memory.
        """
        return self.embed_each(pictures, lambda picture: picture)

    def embed_each(self, items: Iterable[Item], read: Callable[[Item], Picture]) -> Iterator[torch.Tensor]:
        """As `embed`, of what ``read`` makes of the items, in the threads."""
        return (tokens for tokens, _ in self.embed_shown(items, read))

    def embed_shown(
        self, items: Iterable[Item], read: Callable[[Item], Picture]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """As `embed_each`, with the foreground bool [B, row, col]: patches that show a pixel that is not black."""
        with ThreadPoolExecutor(max_workers=self.workers) as pool:
            black = pool.submit(lambda: self.backbone.prepare(BLACK)[:, :1, :1].numpy())

            def prepare(item: Item) -> Prepared:
                pixels = self.backbone.prepare(read(item))
                red, green, blue = pixels.numpy() != black.result()  # torch would take further threads
                return pixels, torch.from_numpy(red | green | blue)

            prepared = _run_ahead(pool, prepare, items, 2 * self.batch_size)
            for pixels, shown in prefetched(_batches(prepared, self.batch_size, pin=self.device.type in PINNED)):
                first = 0
                for tokens in self._within_memory(pixels):
                    yield tokens, on_grid(shown[first : first + len(tokens)], (tokens.shape[1], tokens.shape[2]))
                    first += len(tokens)

    def _within_memory(self, pixels: torch.Tensor) -> Iterator[torch.Tensor]:
        while len(pixels):
            tokens = self._attempt(pixels[: self.batch_size])
            if tokens is None:  # what the attempt had allocated is free only now
                self._halve(pixels[: self.batch_size])
                continue
            yield tokens
            pixels = pixels[len(tokens) :]

    def _attempt(self, pixels: torch.Tensor) -> torch.Tensor | None:
        """The embeddings; None where memory does not suffice."""
        try:
            return self.backbone.embed(pixels)
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
        return None

    def _halve(self, pixels: torch.Tensor) -> None:
        if len(pixels) == 1:
            size = " x ".join(map(str, pixels.shape[2:]))
            raise InputError(f"One image of {size} pixels does not fit into memory: lower the resolution.")
        self.batch_size = len(pixels) // 2
        if self.device.type != "cpu":
            getattr(torch, self.device.type).empty_cache()
        logger.info("Memory is short: batches of %d images from here on.", self.batch_size)


def _run_ahead(
    pool: ThreadPoolExecutor, prepare: Callable[[Item], Prepared], items: Iterable[Item], ahead: int
) -> Iterator[Prepared]:
    """What ``prepare`` makes of the items, in order; ``ahead`` of them are under way or wait."""
    remaining = iter(items)
    queue: deque[Future[Prepared]] = deque(pool.submit(prepare, item) for item in islice(remaining, ahead))
    while queue:
        yield queue.popleft().result()
        queue.extend(pool.submit(prepare, item) for item in islice(remaining, 1))


def _batches(prepared: Iterable[Prepared], batch_size: int, pin: bool) -> Iterator[Prepared]:
    """Stack pixels [3, H, W] and what they show [H, W] to batches; a change of size starts a new batch.

    The pixels lie in pinned memory if asked.
    """
    batch: list[Prepared] = []
    for one in prepared:
        if batch and (len(batch) == batch_size or one[0].shape != batch[0][0].shape):
            yield _stack(batch, pin)
            batch = []
        batch.append(one)
    if batch:
        yield _stack(batch, pin)


def _stack(batch: list[Prepared], pin: bool) -> Prepared:
    pictures, shown = zip(*batch, strict=True)
    pixels = torch.empty((len(batch), *pictures[0].shape), pin_memory=pin)  # torch gives pinned memory out again
    return torch.stack(pictures, out=pixels), torch.stack(shown)
