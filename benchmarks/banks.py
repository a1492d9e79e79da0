"""Smaller banks: a greedy coreset in rounds against one by one, chosen by sketches against exactly; an IVF-PQ index.

Synthetic clusters, D = 384. Covering radius: the chord from the farthest embedding to its nearest of the coreset. Needs
`pip install -e .[bench]`.
"""

from argparse import Namespace

import numpy as np
import torch
from made_data import bank_of, clustered
from runner import Row, alternate, arguments, report, spread

from dinodp.families.memory_bank import SKETCH_DIMS, SKETCH_SLACK
from dinodp.models.inverted_file import InvertedFile, learn_inverted_file, sample_size, usual_code_bytes, usual_lists
from dinodp.models.k_center import farthest_first

D, QUERIES = 384, 2048
M, FRACTIONS = 40_000, (0.01, 0.1)
BANK = 200_000


def one_by_one(unit: torch.Tensor, n: int) -> np.ndarray:
    """Greedy k-center as it is defined: all distances after each."""
    chosen, similarity = [0], unit @ unit[0]
    for _ in range(n - 1):
        chosen.append(int(similarity.argmin()))
        similarity = torch.maximum(similarity, unit @ unit[chosen[-1]])
    return np.asarray(chosen)


def radius(unit: torch.Tensor, chosen: np.ndarray) -> float:
    centres = unit[torch.from_numpy(chosen)].T
    nearest = torch.cat([(part @ centres).amax(1) for part in unit.split(4096)])
    return float((2 - 2 * nearest).clamp(min=0).max().sqrt())


def rounds_against_one_by_one(repeats: int) -> Row:
    unit, n = clustered(M, D), int(FRACTIONS[0] * M)
    same = float((farthest_first(unit, n, 0) == one_by_one(unit, n)).mean())
    row = alternate(lambda: farthest_first(unit, n, 0), lambda: one_by_one(unit, n), repeats, warm_up=0)
    return {"what": "coreset in rounds / one by one", "embeddings": M, "n": n, "same_indices": same, **row}


def sketched_against_exact(fraction: float, repeats: int) -> Row:
    """Covering radii, and that of a random draw, of ``repeats`` sets of embeddings."""
    radii = []
    for seed in range(repeats):
        unit, n = clustered(M, D, seed=seed), int(fraction * M)
        axes = torch.linalg.eigh(unit.T @ unit)[1][:, -SKETCH_DIMS:]
        sketch = torch.nn.functional.normalize(unit @ axes, dim=1).half()
        drawn = np.random.default_rng(seed).permutation(M)[:n]
        found = (farthest_first(unit, n, 0), farthest_first(sketch, n, 0, SKETCH_SLACK), drawn)
        radii.append([radius(unit, chosen) for chosen in found])
    exact, sketched, random = np.array(radii).T
    ratios = {"sketched": spread(sketched / exact), "random": spread(random / exact)}
    return {"what": "covering radius / that of the exact coreset", "embeddings": M, "fraction": fraction, **ratios}


def index_against_exact(repeats: int) -> Row:
    bank, queries = bank_of(BANK, D, "cpu"), clustered(QUERIES, D, seed=2)
    x, lists = bank.embeddings_, usual_lists(BANK)
    sample = x[torch.randperm(BANK, generator=torch.Generator().manual_seed(0))[: sample_size(lists)]]
    generator, code_bytes = torch.Generator().manual_seed(0), usual_code_bytes(D)
    arrays = learn_inverted_file(sample, x.split(8192), lists=lists, code_bytes=code_bytes, generator=generator)
    index = InvertedFile(arrays)
    row = alternate(lambda: index.distances(queries), lambda: bank.distances(queries), repeats, warm_up=1)
    ours, exact = index.distances(queries), bank.distances(queries)
    return {
        "what": "IVF-PQ search / exact search",
        "bank": BANK,
        "queries": QUERIES,
        "lists": lists,
        "code_bytes": code_bytes,
        "correlation": float(np.corrcoef(ours, exact)[0, 1]),
        "mean_error": float((ours - exact).abs().mean()),
        "bytes_ratio": sum(part.nbytes for part in arrays.values()) / (4 * D * BANK),
        **row,
    }


def measure(options: Namespace) -> list[Row]:
    rows = [rounds_against_one_by_one(options.repeats)]
    if options.small:
        return rows
    rows += [sketched_against_exact(fraction, options.repeats) for fraction in FRACTIONS]
    return [*rows, index_against_exact(options.repeats)]


if __name__ == "__main__":
    options = arguments(__doc__)
    report("banks", measure(options), options)
