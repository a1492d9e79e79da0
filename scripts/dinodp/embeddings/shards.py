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
import numpy.typing as npt

from dinodp import store
from dinodp.errors import InputError
from dinodp.jobs.origin import AGAIN


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
    """Write ``tokens`` of all shards, in their order, as a virtual data set that names their files relative to it.

    The file holds the digest of each image, so that a shard that is exchanged later is found when it is read.
    Raises InputError when shards give different patch grids, are of different data or options, or none has an image.
    """
    shapes = {part: _shape(part) for part in parts}
    _require_alike(parts, "embeddings")
    filled = {part: shape for part, shape in shapes.items() if shape[0]}
    _require_images(filled, path)
    grids = {shape[1:] for shape in filled.values()}
    if len(grids) > 1:
        raise InputError(
            f"The shards of {path} have the patch grids {sorted(shape[:2] for shape in grids)}: all images of a data "
            "set need one shape (set `square: true` in the embedding)."
        )
    layout = h5py.VirtualLayout((sum(shape[0] for shape in filled.values()), *grids.pop()), dtype=np.float16)
    layout.dcpl.set_obj_track_times(False)
    first = 0
    for part, shape in filled.items():
        layout[first : first + shape[0]] = h5py.VirtualSource(os.path.relpath(part, path.parent), "tokens", shape)
        first += shape[0]
    with store.reading(next(iter(filled)), "embeddings") as origin, store.writing(path, "embeddings", {}) as file:
        file.create_virtual_dataset("tokens", layout)
        file.attrs.update({name: value for name, value in origin.attrs.items() if name != store.MADE_FOR})
        store.write_image_digests(file, [digest for part in filled for digest in _digests(part)])
        foreground = np.concatenate([_foreground(part) for part in filled])
        file.create_dataset(store.FOREGROUND, data=foreground, track_times=False)


def _require_images(filled: object, path: Path) -> None:
    if not filled:
        raise InputError(f"No shard of {path} holds an image: the split is empty in the manifest.")


def _require_alike(parts: Sequence[Path], kind: str) -> None:
    """Shards name the same options, inputs and code."""
    attributes: dict[tuple[str, ...], Path] = {}
    for part in parts:
        with store.reading(part, kind) as file:
            said = tuple(str(file.attrs[name]) for name in ("config", "made_from", "library_digest"))
            attributes.setdefault(said, part)
    if len(attributes) > 1:
        first, other, *_ = attributes.values()
        raise InputError(f"{other} was made from other data, options or code than {first}: {AGAIN}.")


def _digests(part: Path) -> list[bytes]:
    with store.reading(part, "embeddings") as file:
        return [digest.tobytes() for digest in store.image_digests(file)]


def _foreground(part: Path) -> npt.NDArray[np.bool_]:
    with store.reading(part, "embeddings") as file:
        found: npt.NDArray[np.bool_] = file[store.FOREGROUND][()]
        return found


def _shape(part: Path) -> tuple[int, ...]:
    with store.reading(part, "embeddings") as file:
        return tuple(int(side) for side in file["tokens"].shape)


def gather_scores(parts: Sequence[Path], path: Path, n_images: int) -> None:
    """Write the patch and image scores of all shards, in their order, as one job would have written them.

    Raises InputError when none has an image, or all together have other than ``n_images``.
    """
    _require_alike(parts, "scores")
    with store.reading(parts[0], "scores") as file:
        config, made_from = store.config_of(file), store.inputs_of(file)
    maps = _join([store.read_maps(part) for part in parts], path)
    found = len(next(iter(maps.values())))
    if found != n_images:
        raise InputError(f"The shards of {path} hold {found} images, but the split has {n_images}: remove them.")
    image_scores = _join([store.read_image_scores(part) for part in parts], path)
    store.write_maps(path, config, maps, image_scores, made_from)


def _join(parts: Sequence[store.Maps], path: Path) -> store.Maps:
    filled = [part for part in parts if all(len(values) for values in part.values())]
    _require_images(filled, path)
    return {name: np.concatenate([part[name] for part in filled]) for name in filled[0]}
