"""Metrics and bootstrap of a test set of BraTS2021's size: 3,715 images of 240x240 from 777 subjects, random maps.

Prints seconds, peak memory, and how far the bootstrap's bins are from the metrics themselves:
python benchmarks/paper_shape_metrics.py [share of the images]
"""

import sys
from collections.abc import Iterator
from time import perf_counter

import numpy as np
import numpy.typing as npt

from dinodp.jobs.costs import peak_host_mib
from dinodp.metrics import Bootstrap, evaluate_stream

N_NORMAL, N_ANOMALOUS = 640, 3075


def masks(labels: npt.NDArray[np.bool_]) -> Iterator[npt.NDArray[np.uint8]]:
    """An ellipse of random place and size on every anomalous image."""
    generator = np.random.default_rng(1)
    y, x = np.indices((240, 240))
    for anomalous in labels:
        mask = np.zeros((240, 240), dtype=np.uint8)
        if anomalous:
            (cy, cx), (ry, rx) = generator.uniform(60, 180, 2), generator.uniform(8, 40, 2)
            mask[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = 255
        yield mask


def main() -> None:
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    n_normal, n_anomalous = int(N_NORMAL * share), int(N_ANOMALOUS * share)
    labels = np.arange(n_normal + n_anomalous) >= n_normal
    subjects = [f"n{index // 4}" if index < n_normal else f"a{index // 5}" for index in range(len(labels))]
    maps = np.random.default_rng(0).gamma(2, 1, (len(labels), 32, 32)).astype(np.float32)
    coverage = np.stack([mask[4::8, 4::8] > 0 for mask in masks(labels)])
    maps[:, 1:31, 1:31] += 2 * coverage
    for n_resamples in (0, 1000):
        start = perf_counter()
        bootstrap = Bootstrap.of(subjects, labels, n_resamples) if n_resamples else None
        result = evaluate_stream(maps, masks(labels), maps[:39], image_labels=labels, bootstrap=bootstrap)
        peak = peak_host_mib()
        pixels = len(labels) * 240 * 240 / 1e6
        print(f"{n_resamples} resamples: {perf_counter() - start:.1f} s, {pixels:.0f} M pixels, peak {peak:.0f} MiB")
    once = Bootstrap(bootstrap.subjects, np.ones((1, bootstrap.weights.shape[1])))
    same = evaluate_stream(maps, masks(labels), maps[:39], image_labels=labels, bootstrap=once)
    for name, value in same.replicates.items():
        low, high = np.percentile(result.replicates[name], [2.5, 97.5])
        print(f"{name}: {same.values[name]:.5f} [{low:.5f}, {high:.5f}], off by {value[0] - same.values[name]:+.1e}")


if __name__ == "__main__":
    main()
