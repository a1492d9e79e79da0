"""Measure the frontier: AP of artificial lesions and CPU time against the number of vectors, for every kind of model.

    python benchmarks/frontier_measure.py EMBEDDINGS.pt LAYER ROWS.csv

EMBEDDINGS.pt is of `artificial_lesions.py`, LAYER `b6` or `last`. One thread, CPU time. Rows that the CSV file has are
not measured again, so an interrupted run goes on. Everything is fitted to the foreground of the training images;
healthy validation images choose the strength of the prior.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from artificial_lesions import layer_of, over_kinds
from runner import set_threads
from torch.nn import functional

from dinodp.families.fitting import fit_mixture
from dinodp.models import DirichletProcessMixture, EmpiricalBayesMixture, MemoryBank, coreset
from dinodp.models.calibrated_components import quadratic_forms
from dinodp.models.normal_gamma import Statistics
from dinodp.models.row_stream import RowStream
from dinodp.models.spherical_k_means import spherical_k_means

FITTED, DRAWN, GREEDY = (50, 100, 200, 500, 1000, 2000), (50, 200, 500, 2000, 10_000, 50_000), (50, 200, 500, 2000)
PAPER, SEEDS, PASSES = (50, 200, 500), (0, 1, 2), 5
ROWS, IMAGE, TIMINGS = 4096, 784, 7  # embeddings in a chunk; patches of an image; repeats of a timing
BATCH, EPOCHS = 12, 15  # images of a step of the paper's mixture, of which the foreground is in pieces alike in size
VARIANCE_FLOOR = 1e-6

Score = Callable[[torch.Tensor], torch.Tensor]


class Model(NamedTuple):
    """What scores embeddings [n, D], and how many vectors it keeps."""

    score: Score
    vectors: int


# --- models ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MaximumLikelihood:
    """Components of a Gaussian mixture without a prior, as a posterior of `FullPassMixture`."""

    statistics: Statistics
    alpha: float = 0.0
    nu: float = 0.0

    @property
    def n(self) -> torch.Tensor:
        return self.statistics.n

    @property
    def means(self) -> torch.Tensor:
        return self.statistics.s1 / self.n.clamp_min(1e-10)[:, None]

    @property
    def variances(self) -> torch.Tensor:
        return self.statistics.scatter(0.0) / self.n.clamp_min(1e-10)[:, None] + VARIANCE_FLOOR

    def log_joint(self, x: torch.Tensor) -> torch.Tensor:
        offsets = (self.n / self.n.sum()).clamp_min(1e-300).log() - 0.5 * self.variances.log().sum(1)
        forms = quadratic_forms(x, self.means.to(x.dtype), self.variances.to(x.dtype))
        return forms.mul_(-0.5).add_(offsets.to(x.dtype))

    def divergence(self) -> float:
        return 0.0

    def updated(self, sums: Statistics) -> "MaximumLikelihood":
        return MaximumLikelihood(sums)


class PlainMixture(EmpiricalBayesMixture):
    """Full passes of EM from the same start, without any prior."""

    def _first(self, sums: Statistics) -> MaximumLikelihood:
        return MaximumLikelihood(sums)

    def _use(self, nu: float, inflation: float) -> None:
        found = self._posterior
        self._set_components((found.n / found.n.sum()).log(), found.means + self._mean, found.variances)


class Pieces:
    """Rows [n, D] as images of one size, as the paper's online EM reads them."""

    def __init__(self, x: torch.Tensor, size: int = 220) -> None:
        self._pieces = x[: len(x) // size * size].view(-1, size, x.shape[1])
        self.n_images, self.n_patches, self.dim = self._pieces.shape

    def read(self, indices: list[int]) -> torch.Tensor:
        return self._pieces[indices][:, None]

    def count(self, images: list[int]) -> int:
        return len(images) * self.n_patches


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chunks(x: torch.Tensor) -> Callable[[], Iterator[torch.Tensor]]:
    return lambda: iter(x.split(ROWS))


def ours(x: torch.Tensor, healthy: torch.Tensor, k: int, seed: int) -> Model:
    mixture = EmpiricalBayesMixture(k, passes=PASSES).fit(chunks(x), generator(seed)).calibrate(chunks(healthy))
    return Model(named(mixture, "calibrated_distance"), len(mixture.means_))


def gmm(x: torch.Tensor, healthy: torch.Tensor, k: int, seed: int) -> Model:
    return Model(named(PlainMixture(k, passes=PASSES).fit(chunks(x), generator(seed)), "log_likelihood"), k)


def k_means(x: torch.Tensor, healthy: torch.Tensor, k: int, seed: int) -> Model:
    rows = RowStream(chunks(x), torch.float32, torch.device("cpu"))
    start = max(20_000, 6 * k)
    return bank(spherical_k_means(rows, len(x), k, start_rows=start, passes=4, generator=generator(seed)))


def paper(x: torch.Tensor, healthy: torch.Tensor, k: int, seed: int) -> Model:
    mixture = DirichletProcessMixture(k)
    options: dict[str, Any] = {"epochs": EPOCHS, "images_per_batch": BATCH, "init": "spread"}
    fit_mixture(mixture, Pieces(x), Pieces(healthy), generator=generator(seed), **options)
    return Model(named(mixture, "cosine"), int(mixture.active_.sum()))


def random_bank(x: torch.Tensor, healthy: torch.Tensor, k: int, seed: int) -> Model:
    return bank(x[torch.randperm(len(x), generator=generator(seed))[:k]])


def greedy(x: torch.Tensor, healthy: torch.Tensor, k: int, seed: int) -> Model:
    return bank(x[coreset(x, k, generator(seed))])


def whole(x: torch.Tensor, healthy: torch.Tensor, k: int, seed: int) -> Model:
    return bank(x)


def bank(x: torch.Tensor) -> Model:
    return Model(MemoryBank().fit(x).distances, len(x))


def named(mixture: Any, name: str) -> Score:
    return lambda x: mixture.scores(x, [name])[name]


# --- measuring -------------------------------------------------------------------------------------------------------

PLANS: list[tuple[str, Callable[..., Model], tuple[int, ...], tuple[int, ...]]] = [
    ("calibrated_mixture", ours, FITTED, SEEDS[:1]),
    ("k_means", k_means, FITTED, SEEDS[:1]),
    ("gmm", gmm, FITTED[:-1], SEEDS[:1]),
    ("random bank", random_bank, DRAWN, SEEDS[:1]),
    ("full bank", whole, (0,), SEEDS[:1]),
    ("coreset", greedy, GREEDY, SEEDS[:1]),
    ("paper", paper, PAPER, SEEDS[:1]),
    ("calibrated_mixture", ours, FITTED[3:], SEEDS[1:]),
]


def cpu_ms(score: Score, x: torch.Tensor) -> float:
    """CPU milliseconds of one image's patches, the median of a few; the whole bank needs no more."""
    times = []
    while len(times) < TIMINGS and sum(times) < 3000:
        start = time.process_time()
        score(x[:IMAGE])
        times.append(1000 * (time.process_time() - start))
    return float(pd.Series(times).median())


def main() -> None:
    """Append a row for each model, size and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("layer", choices=("b6", "last"))
    parser.add_argument("out", type=Path, help="such as benchmarks/results/frontier_oasis_last.csv")
    options = parser.parse_args()
    set_threads(1)
    found = torch.load(options.embeddings, weights_only=False)
    x = layer_of(found["train"], options.layer)
    healthy = layer_of(found["healthy"]["tokens"][found["healthy"]["shown"]], options.layer)
    rows = pd.read_csv(options.out).to_dict("records") if options.out.is_file() else []
    known = {(row["layer"], row["model"], row["size"], row["seed"]) for row in rows}
    for name, build, sizes, seeds in PLANS:
        for size, seed in ((size, seed) for size in sizes for seed in seeds):
            if (options.layer, name, size, seed) in known:
                continue
            start = time.process_time()
            model = build(x, healthy, size, seed)
            fit = time.process_time() - start
            values = over_kinds(model.score, found, options.layer)
            rows.append({
                "layer": options.layer, "model": name, "size": size, "vectors": model.vectors, "seed": seed,
                "mean_auroc": round(values["mean_auroc"], 5), "gm_ap": round(values["gm_ap"], 5),
                "cpu_ms_784": round(cpu_ms(model.score, functional.normalize(x[:IMAGE], dim=1)), 2),
                "fit_cpu_s": round(fit, 1),
            })  # fmt: skip
            print(rows[-1], flush=True)
            pd.DataFrame(rows).to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
