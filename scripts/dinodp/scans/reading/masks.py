"""Lesion masks that belong to predictions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from dinodp.datasets.geometry import VolumeGeometry, same_grid
from dinodp.datasets.map_files import find_arrays, read_array
from dinodp.datasets.volumes import SUFFIXES, labelled, open_mask
from dinodp.errors import InputError, require_known
from dinodp.images import read_image, read_mask
from dinodp.scans.reading.folder import find_scans

WITHOUT_MASK = ("refuse", "healthy", "skip")
Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class MaskNaming:
    """The mask of scan ``<subject><scan_suffix>`` is called ``<subject><mask_suffix>``; ``without``: what a scan with
    no mask means. Raises InputError for an unknown meaning."""

    scan_suffix: str = ""
    mask_suffix: str = ""
    without: Literal["refuse", "healthy", "skip"] = "refuse"

    def __post_init__(self) -> None:
        require_known("meaning of a scan without mask", self.without, WITHOUT_MASK)

    def mask_name(self, scan: str) -> str:
        """Name of the mask of a scan."""
        if self.scan_suffix and not scan.endswith(self.scan_suffix):
            raise InputError(f"The scan {scan} does not end in {self.scan_suffix!r} (--scan-suffix).")
        return scan.removesuffix(self.scan_suffix) + self.mask_suffix


def find_masks(folder: Path, scans: list[str], naming: MaskNaming) -> dict[str, Path | None]:
    """The mask of each scan, None for one that is healthy without; scans that are skipped are left out.

    Raises InputError for a scan without mask where that is refused, and when no scan has one.
    """
    known = mask_files(folder)
    found: dict[str, Path | None] = {name: known.get(naming.mask_name(name)) for name in scans}
    missing = [name for name, path in found.items() if path is None]
    if len(missing) == len(found):
        raise InputError(
            f"No scan has a mask in {folder}: that of {scans[0]} would be called {naming.mask_name(scans[0])}, but "
            f"there is for example {next(iter(known))} (--scan-suffix and --mask-suffix)."
        )
    if missing and naming.without == "refuse":
        raise InputError(
            f"{len(missing)} of {len(found)} scans have no mask in {folder}, for example {missing[0]}: say with "
            "--without-mask whether they are healthy or to be skipped."
        )
    return {name: path for name, path in found.items() if path or naming.without == "healthy"}


def mask_files(folder: Path) -> dict[str, Path]:
    """The masks, or scans, below a folder by name: NumPy arrays, or what `find_scans` finds. Raises InputError."""
    return find_arrays(folder) or dict(find_scans(folder))


def read_volume_mask(path: Path, geometry: VolumeGeometry, *, labels: bool = True) -> Mask:
    """Where a mask is not zero, as upright slices of ``geometry``; it may be oriented otherwise on disk.

    Raises InputError when it does not lie on the grid of the map, or, unless ``labels`` is False, holds no labels.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"The mask {path} of a volume must be NIfTI.")
    mask = open_mask(path)
    own = mask.geometry(geometry.axis, geometry.frame)
    if own.stack_shape != geometry.stack_shape:
        sizes = [" x ".join(map(str, shape)) for shape in (own.stack_shape, geometry.stack_shape)]
        raise InputError(f"The mask {path} does not lie on the grid of its map: {sizes[0]} against {sizes[1]} voxels.")
    if not same_grid(own, geometry):
        raise InputError(f"The mask {path} does not lie on the grid of its map: its affine is another one.")
    stack = own.to_stack(mask.voxels())
    return labelled(stack, path) if labels else np.asarray(stack != 0)


def read_mask_values(path: Path, *, labels: bool = True) -> Values:
    """Values [H, W] of an image's mask, or, unless ``labels``, 1 where an image has another colour than black."""
    return read_mask(path) if labels else np.asarray(read_image(path).any(axis=2), dtype=np.uint8)


def read_array_mask(path: Path, *, labels: bool = True) -> Values:
    """Values [slice, H, W] of a mask that is a NumPy array, above 254 only where they are 255; unless ``labels``, 1
    where it is not 0. Raises InputError for what holds no labels."""
    stored = read_array(path, "mask")
    if labels:
        labelled(stored, path)
    values = np.round(stored) if labels else stored != 0
    found = np.where(values == 255, 255, np.minimum(values, 254)).astype(np.uint8)
    return found if found.ndim == 3 else found[None]
