"""From patch scores to anomaly maps at the resolution of the mask."""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional
from scipy import ndimage

Map = npt.NDArray[np.float32]


def anomaly_map(patch_map: Map, size: tuple[int, int], smoothing_sigma: float = 0.0) -> Map:
    """Upsample patch scores [row, col] bilinearly to ``size`` (height, width), float32.

    ``smoothing_sigma`` > 0 adds a Gaussian of that many pixels (AnomalyDINO's protocol: 4; the paper's: none). Values
    stay between the smallest and the largest patch score.
    """
    batch = torch.from_numpy(np.ascontiguousarray(patch_map, dtype=np.float32))[None, None]
    enlarged: Map = functional.interpolate(batch, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()
    if smoothing_sigma > 0:
        smoothed: Map = ndimage.gaussian_filter(enlarged, smoothing_sigma)
        return smoothed
    return enlarged
