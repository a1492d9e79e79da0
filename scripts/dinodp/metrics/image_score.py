"""The score of a whole image, from those of its patches. Higher is more anomalous."""

import numpy as np
import numpy.typing as npt


def image_score(maps: npt.NDArray[np.float32], fraction: float = 0.01) -> npt.NDArray[np.float32]:
    """Mean [n] of the highest ``fraction`` (at least one) of the patch scores [n, row, col] of each image."""
    flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2])
    count = max(1, int(flat.shape[1] * fraction))
    highest = np.partition(flat, flat.shape[1] - count, axis=1)[:, -count:]
    means: npt.NDArray[np.float32] = highest.mean(axis=1, dtype=np.float64).astype(np.float32)
    return means
