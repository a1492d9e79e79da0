"""One diagonal step of the mixture on 12,288 x 384 embeddings with K = 500, against the four matrix products it needs.

The two are timed alternately in one run; prints medians, their ratio with its spread, and peak memory beyond the data:
python benchmarks/fit_step.py
"""

import resource
from time import perf_counter

import numpy as np
import torch

from dinodp.models import DirichletProcessMixture

N, D, K, REPEATS = 12_288, 384, 500, 15


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def matrix_products(x: torch.Tensor, weights: torch.Tensor) -> None:
    """The products of an E-step (two of n x K x D) and an M-step (two more)."""
    scores = x @ weights.T
    scores.addmm_(x, weights.T)
    scores.T @ x
    scores.T @ x


def seconds(call, *arguments) -> float:
    start = perf_counter()
    call(*arguments)
    return perf_counter() - start


def main() -> None:
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(N, D, generator=generator), dim=1)
    mixture = DirichletProcessMixture(K, "diag")
    before = peak_mib()
    mixture.initialize(x, generator=generator)
    mixture.partial_fit(x)
    print(f"peak memory beyond the data: {peak_mib() - before:.0f} MiB (data: {x.nbytes / 2**20:.0f} MiB)")
    pairs = [(seconds(mixture.partial_fit, x), seconds(matrix_products, x, mixture.means_)) for _ in range(REPEATS)]
    step, products = np.array(pairs).T
    ratio = np.percentile(step / products, [25, 50, 75])
    print(f"step {np.median(step):.3f} s, four matrix products {np.median(products):.3f} s (median of {REPEATS})")
    print(f"step / products: {ratio[1]:.2f} (quartiles {ratio[0]:.2f} to {ratio[2]:.2f})")


if __name__ == "__main__":
    main()
