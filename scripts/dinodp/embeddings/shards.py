"""Split the images of one split over several jobs, and put their files together.

Shards are whole batches, so every batch holds the same images whatever the number of shards, and every number is the
same. Embeddings, the one large kind of file, are not copied: the gathered file is an HDF5 virtual data set over the
shards. Scores are small and are copied: that file equals the one of a single job byte for byte.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from dinodp import store
from dinodp.errors import InputError


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 0) of ``count`` parts of the images of a split."""

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, wildcards: Mapping[str, str]) -> "Shard":
        """The shard that a path names (``shard-{shard}-of-{shards}``); all images when it names none."""
        return cls(int(wildcards.get("shard", 0)), int(wildcards.get("shards", 1)))

    def images(self, n_images: int, batch_size: int) -> range:
        """The images of this shard: whole batches, and as many as in other shards, give or take one; maybe none."""
        n_batches = -(-n_images // batch_size)
        first, last = (n_batches * index // self.count * batch_size for index in (self.index, self.index + 1))
        return range(min(first, n_images), min(last, n_images))


def gather_embeddings(parts: Sequence[Path], path: Path) -> None:
    """Write what all shards hold, in their order, as virtual data sets that name their files relative to it.

    Raises InputError when shards give different patch grids or none has an image.
    """
    shapes = {part: _shape(part) for part in parts}
    filled = {part: shape for part, shape in shapes.items() if shape[0]}
    _require_images(filled, path)
    grids = {shape[1:] for shape in filled.values()}
    if len(grids) > 1:
        raise InputError(
            f"The shards of {path} have the patch grids {sorted(shape[:2] for shape in grids)}: all images of a data "
            "set need one shape (set `square: true` in the embedding)."
        )
    with store.reading(next(iter(filled)), "embeddings") as origin, store.writing(path, "embeddings", {}) as file:
        counts = {os.path.relpath(part, path.parent): shape[0] for part, shape in filled.items()}
        for name, data in origin.items():
            file.create_virtual_dataset(name, _joined(counts, name, data))
        file.attrs.update(origin.attrs)


def _joined(counts: Mapping[str, int], name: str, like: h5py.Dataset) -> h5py.VirtualLayout:
    """A data set of all files {path: number of images}, ``like`` that of one of them."""
    layout = h5py.VirtualLayout((sum(counts.values()), *like.shape[1:]), dtype=like.dtype)
    layout.dcpl.set_obj_track_times(False)
    first = 0
    for file, count in counts.items():
        layout[first : first + count] = h5py.VirtualSource(file, name, (count, *like.shape[1:]), dtype=like.dtype)
        first += count
    return layout


def _require_images(filled: object, path: Path) -> None:
    if not filled:
        raise InputError(f"No shard of {path} holds an image: the split is empty in the manifest.")


def _shape(part: Path) -> tuple[int, ...]:
    with store.reading(part, "embeddings") as file:
        return tuple(int(side) for side in file["tokens"].shape)


def gather_scores(parts: Sequence[Path], path: Path, n_images: int) -> None:
    """Write the patch and image scores of all shards, in their order, as one job would have written them.

    Raises InputError when none has an image, or all together have other than ``n_images``.
    """
    with store.reading(parts[0], "scores") as file:
        config = store.config_of(file)
    maps = _join([store.read_maps(part) for part in parts], path)
    found = len(next(iter(maps.values())))
    if found != n_images:
        raise InputError(f"The shards of {path} hold {found} images, but the split has {n_images}: remove them.")
    image_scores = _join([store.read_image_scores(part) for part in parts], path)
    store.write_maps(path, config, maps, image_scores)


def _join(parts: Sequence[store.Maps], path: Path) -> store.Maps:
    filled = [part for part in parts if all(len(values) for values in part.values())]
    _require_images(filled, path)
    return {name: np.concatenate([part[name] for part in filled]) for name in filled[0]}
