"""Coverage of 95 % intervals over subjects by simulation: how often they hold the value of infinitely many subjects.

``python benchmarks/interval_coverage.py [--small]`` prints, by number of subjects with an anomaly and by metric, the
share of simulated test sets whose interval holds the true value: of percentiles of the resamples, and of the interval
that the project uses (`evaluation.intervals.interval`), for one model and for the difference of two.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from scipy.stats import norm

from dinodp.evaluation.intervals import interval
from dinodp.metrics.bootstrap import resampling_weights
from dinodp.metrics.counts import CumulativeCounts
from dinodp.metrics.definitions import METRICS

NAMES = ("pixel_auroc", "pixel_average_precision", "aupro_30")
EDGES = np.linspace(-5, 9, 257)
SUBJECTS = (3, 5, 7, 10, 20, 50)  # with an anomaly; as many without


def histograms(draw: np.random.Generator, n: int, anomalous: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expected pixels per bin [model, subject, bin] (normal, anomalous) and lesions [subject] of ``n`` subjects.

    Two models see the same subjects: effects of the subject on normal tissue (sd 0.3), of its lesion's contrast (mean
    1.5 and 1.7, sd 0.8, mostly shared), and lesions whose size spreads over two orders of magnitude.
    """
    body = draw.normal(0, 0.3, n) + draw.normal(0, 0.1, (2, n))
    contrast = np.array([[1.5], [1.7]]) + draw.normal(0, 0.8, n) + draw.normal(0, 0.3, (2, n))
    size = np.clip(np.exp(draw.normal(-4, 1.2, n)), 1e-4, 0.3) if anomalous else np.zeros(n)
    normal = _shares(body) * (1 - size)[None, :, None]
    return normal * 1e5, _shares(body + contrast) * size[None, :, None] * 1e5, (size > 0).astype(float)


def _shares(mean: np.ndarray) -> np.ndarray:
    return np.diff(norm.cdf(EDGES, loc=mean[..., None]), axis=-1)


def values(parts: tuple[np.ndarray, np.ndarray, np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Each metric [model, resample] of subjects that occur ``weights`` [resample, subject] times."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
    normal, anomalous, lesions = parts
    for model in range(2):
        above = [np.cumsum((weights @ part[model])[:, ::-1], axis=1) for part in (normal, anomalous)]
        region = np.cumsum((weights @ _per_lesion(anomalous[model]))[:, ::-1], axis=1)
        counts = CumulativeCounts(*above, region, weights @ lesions, tied=False)
        for name in NAMES:
            found[name].append(METRICS[name].compute(counts))
    return {name: np.array(items) for name, items in found.items()}


def _per_lesion(anomalous: np.ndarray) -> np.ndarray:
    return anomalous / np.maximum(anomalous.sum(axis=-1, keepdims=True), 1e-12)


def test_set(draw: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A test set of ``n`` subjects with and ``n`` without an anomaly."""
    both = zip(histograms(draw, n, True), histograms(draw, n, False), strict=True)
    normal, anomalous, lesions = (np.concatenate(pair, axis=-2 if pair[0].ndim == 3 else 0) for pair in both)
    return normal, anomalous, lesions


def simulate(n: int, sets: int, resamples: int, truth: dict[str, np.ndarray], seed: int) -> Iterator[tuple[str, ...]]:
    """Rows of the table for one number of subjects."""
    draw = np.random.default_rng(seed)
    held: dict[tuple[str, str], list[bool]] = {}
    for number in range(sets):
        parts = test_set(draw, n)
        weights = resampling_weights([True] * n + [False] * n, resamples, seed=number)
        one, many = values(parts, np.ones((1, 2 * n))), values(parts, weights)
        for name in NAMES:
            for what, sign in ((name, (1, 0)), (f"{name}, difference", (-1, 1))):
                true, value, replicates = (np.dot(sign, array) for array in (truth[name], one[name], many[name]))
                percentile = tuple(np.percentile(replicates, (2.5, 97.5)))
                ours = interval(value[0], replicates, n, difference=sign != (1, 0))
                for method, found in (("percentile", percentile), ("ours", ours)):
                    if found[0] is not None:
                        held.setdefault((what, method), []).append(bool(found[0] <= true[0] <= found[1]))
    for what in (kind for name in NAMES for kind in (name, f"{name}, difference")):
        cells = [held.get((what, method)) for method in ("percentile", "ours")]
        yield (str(n), what, *(f"{100 * np.mean(cell):.1f}" if cell else "none" for cell in cells))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    sets, resamples, population = (20, 100, 500) if small else (1000, 300, 10_000)
    truth = values(test_set(np.random.default_rng(99), population), np.ones((1, 2 * population)))
    print("| subjects | metric | percentile, % | ours, % |\n|--:|---|--:|--:|")
    for n in SUBJECTS:
        for row in simulate(n, sets, resamples, truth, seed=n):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
