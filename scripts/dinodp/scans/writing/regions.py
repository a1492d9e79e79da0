"""Connected regions above a threshold: where they lie and how large they are."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dinodp.datasets.geometry import VolumeGeometry

Map = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Region:
    """``centroid`` [3] in mm (right, front, top positive) and ``volume_ml`` of a volume's region, else None;
    ``centre`` is the centroid as an index on disk: (i, j, k) of a volume, (row, column) of an image."""

    size: int  # voxels or pixels
    volume_ml: float | None
    centroid: tuple[float, ...] | None
    centre: tuple[float, ...]
    mean_score: float
    max_score: float


def find_regions(
    scores: Map, mask: npt.NDArray[np.bool_], geometry: VolumeGeometry | None, n_largest: int
) -> tuple[int, list[Region]]:
    """Number of regions of ``mask``, and the largest of them; ``scores`` and ``mask`` are as on disk.

    Voxels that touch at a corner are connected.
    """
    labels, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")[:n_largest]
    boxes = ndimage.find_objects(labels)
    found = []
    for index in order.tolist():
        box = boxes[index]
        places = np.argwhere(labels[box] == index + 1) + [side.start for side in box]
        found.append(_measured(scores[tuple(places.T)], places, geometry))
    return int(count), found


def _measured(values: Map, places: npt.NDArray[np.int64], geometry: VolumeGeometry | None) -> Region:
    centre = places.mean(axis=0)
    volume, centroid = None, None
    if geometry is not None:
        volume = round(len(values) * geometry.voxel_ml, 6)
        centroid = tuple(_rounded(geometry.to_mm(np.append(centre, np.zeros(3 - len(centre)))), 2))
    mean, highest = float(values.mean(dtype=np.float64)), float(values.max())
    return Region(len(values), volume, centroid, tuple(_rounded(centre, 2)), mean, highest)


def _rounded(values: npt.NDArray[np.float64], digits: int) -> Iterator[float]:
    return (round(float(value), digits) for value in values)
