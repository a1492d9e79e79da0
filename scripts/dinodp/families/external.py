"""Another method, of which only anomaly maps are known: files in a folder, one per image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import field_validator

from dinodp.datasets.map_files import find_maps, name_of, read_map_file
from dinodp.errors import InputError
from dinodp.families.base import FitTask, Fitted, ModelOptions, Source
from dinodp.jobs.files import user_path
from dinodp.options.base import option
from dinodp.options.choices import FromOne

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from dinodp.store import Maps

SCORE = "map"
Map = npt.NDArray[np.float32]


class ExternalOptions(ModelOptions):
    """Anomaly maps that another tool wrote into a folder, one per image (docs/referee.md)."""

    SCORES: ClassVar[tuple[str, ...]] = (SCORE,)
    FOR_OWN_SCANS: ClassVar[bool] = False
    ANY_VALUE: ClassVar[frozenset[str]] = ModelOptions.ANY_VALUE | {"maps"}

    family: Literal["external"] = "external"
    maps: str = option(
        ..., "The folder of the maps (NIfTI, .npy, TIFF or PNG of 16 bits), called as the images of the manifest."
    )
    size: tuple[FromOne, FromOne] | None = option(
        None, "Height and width at which maps are kept (bilinear); absent: their own, which must be one.", unit="pixels"
    )

    @field_validator("maps")
    @classmethod
    def _expand(cls, path: str) -> str:
        return str(user_path(path)) if path.startswith("~") else path

    @field_validator("background")
    @classmethod
    def _keeps_background(cls, background: str) -> str:
        if background != "keep":
            raise ValueError("the maps of another method are taken as they are: keep")
        return background

    @property
    def is_random(self) -> bool:
        """The maps are given."""
        return False

    def labels(self) -> dict[str, Any]:
        """Unit length has no meaning here."""
        return {**super().labels(), "normalised": ""}

    def places(self) -> list[str]:
        """The folder of the maps."""
        return [self.maps]

    def fit(self, task: FitTask) -> Fitted:
        """Nothing to fit. Raises InputError where the folder holds no map."""
        find_maps(Path(self.maps))
        return Fitted({}, {}, None)

    def load(self, state: Mapping[str, Any], train: Source, *, seed: int, device: str) -> External:
        """The maps, which are read when images are scored."""
        return External(Path(self.maps), self.size)


class External:
    """Maps by the names of images; ``made_from``: the digest of those that were read."""

    names: Sequence[str] = (SCORE,)

    def __init__(self, folder: Path, size: tuple[int, int] | None) -> None:
        self.folder, self.size, self.resizes = folder, size, size is not None
        self.digest = hashlib.sha256()

    @cached_property
    def known(self) -> dict[str, list[Path]]:
        """The maps of each name of a file, without folders and suffix."""
        found: dict[str, list[Path]] = {}
        for path in find_maps(self.folder).values():
            found.setdefault(name_of(path.name), []).append(path)
        return found

    @property
    def made_from(self) -> dict[str, str]:
        """What the scores depend on beside model, embeddings and manifest."""
        return {"maps": self.digest.hexdigest()}

    def score(self, tokens: torch.Tensor, rows: pd.DataFrame) -> Maps:
        """The maps of images, all of one size. Raises InputError for a map that is missing, or of another size.

        An anomalous validation image needs none, as no threshold is made of it; without one its map is 0.
        """
        return {SCORE: np.stack([self._map(row) for row in rows.itertuples()])}

    def _map(self, row: Any) -> Map:
        path = self._file(row)
        if path is None:
            return np.zeros(self._size_of_all(), dtype=np.float32)
        values = _picture(path)
        self.digest.update(f"{row.image_sha256} {values.shape}".encode() + np.ascontiguousarray(values).tobytes())
        if self.resizes:
            return _resized(values, self._size_of_all())
        if values.shape != self._size_of_all():
            sizes = [" x ".join(map(str, shape)) for shape in (values.shape, self._size_of_all())]
            raise InputError(
                f"The map {path} has {sizes[0]} pixels, others have {sizes[1]}: set the model's size, to which all are "
                "resized."
            )
        return values

    def _size_of_all(self) -> tuple[int, int]:
        """Height and width of all maps: those asked for, or those of the first map of the folder."""
        if self.size is None:
            values = _picture(next(iter(find_maps(self.folder).values())))
            self.size = (values.shape[0], values.shape[1])
        return self.size

    def _file(self, row: Any) -> Path | None:
        """The map of a manifest row, by name; its folders are among those of the image, of several maps the most."""
        name, folders = Path(row.image).stem, set(Path(row.image).parts[:-1])
        fitting: dict[int, list[Path]] = {}
        for path in self.known.get(name, []):
            own = set(path.relative_to(self.folder).parts[:-1])
            if own <= folders:
                fitting.setdefault(len(own), []).append(path)
        best = fitting[max(fitting)] if fitting else []
        if not best and row.split == "valid" and row.label == "anomalous":
            return None
        if not best:
            raise InputError(
                f"The folder {self.folder} holds no map of the image {row.image} ({row.split}): it would be called "
                f"{name}.npy, .nii.gz, .tiff or .png, in folders that are called as those of the image. All test "
                "images and all normal validation images need one."
            )
        if len(best) > 1:
            raise InputError(
                f"{best[0]} and {best[1]} could both be the map of the image {row.image}: put them into folders that "
                "are called as those of the images."
            )
        return best[0]


def _picture(path: Path) -> Map:
    """A map [row, column]; in NIfTI of one slice the first axis is the column. Raises InputError for several slices."""
    values, volume = read_map_file(path)
    flat = values if volume is None else values.reshape([n for n in values.shape if n > 1] or [1, 1]).T
    if flat.ndim != 2:
        raise InputError(f"The map {path} has slices: the pipeline needs one map per image.")
    return np.ascontiguousarray(flat)


def _resized(values: Map, size: tuple[int, int]) -> Map:
    """A map [H, W] at another size, bilinear; where it becomes smaller, over all pixels that a new one covers."""
    import torch  # not for reading the configuration
    from torch.nn import functional

    batch = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None, None]
    resized = functional.interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=True)
    found: Map = resized[0, 0].numpy()
    return found
