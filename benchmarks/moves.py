"""Do moves that split and merge components pay? Bound, held-out likelihood, lesions found, and time, against none.

    python benchmarks/moves.py planted
    python benchmarks/moves.py EMBEDDINGS.pt LAYER

A move puts components together whose union costs the bound least, and gives what that frees to components that gain
most by being halved. Both are judged by the closed form of the bound for embeddings of one component each, as in
memoized variational inference (Hughes & Sudderth, NeurIPS 2013). Passes of EM follow; where the bound has then not
risen, the components from before the move return. Both arms have the same number of passes.
"""

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from artificial_lesions import layer_of, over_kinds
from frontier_measure import chunks, generator
from runner import FOLDER, set_threads
from torch.nn import functional

from dinodp.models import EmpiricalBayesMixture
from dinodp.models.empirical_bayes_mixture import GaussianPosterior
from dinodp.models.normal_gamma import Prior, Statistics
from dinodp.models.row_stream import RowStream

ROUNDS, PASSES_PER_ROUND, FIRST_PASSES, SHARE = 4, 2, 5, 0.1  # moves at most of a tenth of the components a round
COMPONENTS, POWER_ITERATIONS = 500, 3
PIECE = 220  # rows
COSINE = 0.97  # to a planted direction, to have found it


def log_evidence(statistics: Statistics, prior: Prior) -> torch.Tensor:
    """Log-marginal likelihood [...] of the embeddings of one component each, n [...], s1 and s2 [..., D].

    With n log n, its share in the likelihood of the labels.
    """
    n, kappa = statistics.n[..., None], prior.kappa
    scatter = (statistics.s2 - statistics.s1.square() / (kappa + n)).clamp_min(0)
    shape0, rate0 = prior.nu / 2, prior.nu * prior.tau / 2
    shape = shape0 + n / 2
    each = torch.lgamma(shape) - math.lgamma(shape0) + shape0 * rate0.log() - shape * (rate0 + scatter / 2).log()
    each = each + 0.5 * (math.log(kappa) - (kappa + n).log()) - 0.5 * n * math.log(2 * math.pi)
    return each.sum(-1) + torch.xlogy(statistics.n, statistics.n)


class Halves(NamedTuple):
    """Statistics of every component, and of its two halves across its principal axis, by embeddings of one each."""

    whole: Statistics
    low: Statistics
    high: Statistics


class Moving(EmpiricalBayesMixture):
    """The mixture with rounds of moves after ``passes`` of EM; without any when ``moves`` is False."""

    moves: bool = True

    def fit_on(self, x: torch.Tensor, seed: int) -> "Moving":
        """Fit, then rounds of moves and passes; ``accepted_`` counts components that moved in each round.

        A round whose moves lower the bound is gone through again without them, and the next one tries half as many.
        """
        self.fit(chunks(x), generator(seed))
        rows, self.accepted_, most = self._rows(chunks(x)), list[int](), int(SHARE * self.n_components)
        for _ in range(ROUNDS):
            before = self._posterior
            n_moved = self._move(rows, most) if self.moves and most else 0
            self._passes(rows)
            if n_moved and self._bound(rows) <= self._bound_of(before, rows):
                self._posterior, n_moved, most = before, 0, most // 2
                self._passes(rows)
            self.accepted_.append(n_moved)
        self.bound_ = self._bound(rows) / len(x)
        self.alpha_, self.counts_ = self._posterior.alpha, self._posterior.n
        self._use(self._posterior.nu, 1.0)
        return self

    def _passes(self, rows: RowStream) -> None:
        for _ in range(PASSES_PER_ROUND):
            self._posterior = self._posterior.updated(self._expected(rows, self._posterior.gaussians.means)[0])

    def _bound(self, rows: RowStream) -> float:
        """Of all embeddings together, under the posterior as it is."""
        total = sum(float(self._posterior.log_joint(self._seen(chunk)).logsumexp(1).double().sum()) for chunk in rows)
        return total - self._posterior.divergence()

    def _bound_of(self, posterior: GaussianPosterior, rows: RowStream) -> float:
        present, self._posterior = self._posterior, posterior
        bound = self._bound(rows)
        self._posterior = present
        return bound

    def _move(self, rows: RowStream, most: int) -> int:
        """Merge and split at most so many where the closed form gains; how many that were."""
        halves, prior = self._halves(rows), self._posterior.gaussians.prior
        evidence = log_evidence(halves.whole, prior)
        gains = log_evidence(halves.low, prior) + log_evidence(halves.high, prior) - evidence
        splits = gains.argsort(descending=True).tolist()
        pairs, used, merged, divided = merges(halves.whole, evidence, prior), set[int](), [], []
        for loss, one, other in pairs:
            if len(merged) >= most or one in used or other in used:
                continue
            target = next((k for k in splits if k not in used and k not in (one, other)), None)
            if target is None or float(gains[target]) <= loss:
                break
            used |= {one, other, target}
            merged.append((one, other))
            divided.append(target)
        if merged:
            self._posterior = self._posterior.updated(moved(halves, merged, divided))
        return len(merged)

    def _halves(self, rows: RowStream) -> Halves:
        means = self._posterior.gaussians.means
        labels = [self._posterior.log_joint(self._seen(chunk)).argmax(1) for chunk in rows]
        axes, k = functional.normalize(self._posterior.gaussians.variances, dim=1), len(means)
        for _ in range(POWER_ITERATIONS):
            sums = torch.zeros_like(axes)
            for away, own in self._away(rows, labels, means):
                sums.index_add_(0, own, away * (away * axes[own]).sum(1, keepdim=True))
            axes = functional.normalize(sums, dim=1)
        both = Statistics.zeros(torch.cat([means, means]))
        for away, own in self._away(rows, labels, means):
            both.add_labels(own + k * ((away * axes[own]).sum(1) > 0), away + means[own])
        low, high = (Statistics(both.n[part], both.s1[part], both.s2[part]) for part in (slice(k), slice(k, None)))
        return Halves(Statistics(low.n + high.n, low.s1 + high.s1, low.s2 + high.s2), low, high)

    def _away(self, rows: RowStream, labels: list[torch.Tensor], means: torch.Tensor) -> Iterator[tuple]:
        """Embeddings minus their component's mean, float64 [n, D], and the component [n]."""
        for chunk, own in zip(rows, labels, strict=True):
            yield self._seen(chunk).double() - means[own], own


def merges(whole: Statistics, evidence: torch.Tensor, prior: Prior) -> list[tuple[float, int, int]]:
    """(loss of log evidence, k, j) of pairs, the smallest first: of each component with its ten nearest."""
    means = whole.s1 / whole.n.clamp_min(1e-9)[:, None]
    near = torch.cdist(means, means).topk(min(11, len(means)), largest=False).indices[:, 1:]
    found = []
    for k, others in enumerate(near):
        joined = Statistics(*(part[k] + part[others] for part in parts(whole)))
        losses = evidence[k] + evidence[others] - log_evidence(joined, prior)
        found += [(float(loss), k, int(j)) for loss, j in zip(losses, others, strict=True)]
    return sorted(found)


def moved(halves: Halves, merged: list[tuple[int, int]], divided: list[int]) -> Statistics:
    """Statistics after each pair is one component, and each of ``divided`` is two."""
    found = [part.clone() for part in parts(halves.whole)]
    for (one, other), k in zip(merged, divided, strict=True):
        for part, low, high in zip(found, parts(halves.low), parts(halves.high), strict=True):
            part[one] += part[other]
            part[k], part[other] = low[k], high[k]
    return Statistics(*found)


def parts(statistics: Statistics) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return statistics.n, statistics.s1, statistics.s2


# --- what is compared ------------------------------------------------------------------------------------------------


def planted(seed: int, d: int = 64, k: int = 100, images: int = 300, shown: int = 20, each: int = 10) -> tuple:
    """Training and held-out unit vectors about ``k`` directions of which each image has ``shown``; the directions."""
    source = generator(1000 + seed)
    directions = functional.normalize(torch.randn(k, d, generator=source), dim=1)
    width = 0.02 + 0.06 * torch.rand(k, 1, generator=source)
    parts = []
    for _ in range(2 * images):
        labels = torch.randperm(k, generator=source)[:shown].repeat(each)
        noise = torch.randn(len(labels), d, generator=source)
        parts.append(functional.normalize(directions[labels] + width[labels] * noise, dim=1))
    return torch.cat(parts[:images]), torch.cat(parts[images:]), directions


def of_planted(options: argparse.Namespace, seed: int, moves: bool) -> list[dict]:
    """As many components as there are directions, and half as many again."""
    x, unseen, directions = planted(seed)
    rows = []
    for k in (len(directions), 3 * len(directions) // 2):
        mixture, seconds = fitted(x, k, seed, moves)
        nearest = (functional.normalize(mixture.means_, dim=1) @ directions.T).amax(0)
        common = row(options, k, seed, mixture, unseen, seconds)
        rows.append(common | {"found": int((nearest > COSINE).sum())})
    return rows


def of_images(options: argparse.Namespace, seed: int, moves: bool) -> list[dict]:
    found = torch.load(options.data, weights_only=False)
    x = layer_of(every_second(found["train"]), options.layer)
    healthy = layer_of(found["healthy"]["tokens"][found["healthy"]["shown"]], options.layer)
    mixture, seconds = fitted(x, COMPONENTS, seed, moves)
    common = row(options, COMPONENTS, seed, mixture, healthy, seconds)
    mixture.calibrate(chunks(healthy))
    for name in ("calibrated_distance", "mahalanobis"):
        values = over_kinds(lambda rows, name=name: mixture.scores(rows, [name])[name], found, options.layer)
        common |= {f"{key}_{name}": values[key] for key in ("mean_auroc", "gm_ap")}
    return [common]


def every_second(tokens: torch.Tensor) -> torch.Tensor:
    """Of pieces as large as an image's foreground, as the ablation takes every second slice."""
    return torch.cat(tokens.split(PIECE)[::2])


def fitted(x: torch.Tensor, k: int, seed: int, moves: bool) -> tuple[Moving, float]:
    """A mixture, and the CPU seconds of its fit."""
    mixture = Moving(k, passes=FIRST_PASSES)
    mixture.moves = moves
    start = time.process_time()
    return mixture.fit_on(x, seed), time.process_time() - start


def row(
    options: argparse.Namespace, k: int, seed: int, mixture: Moving, unseen: torch.Tensor, seconds: float
) -> dict[str, object]:
    """What is known of every mixture."""
    likelihood = -float(mixture.scores(unseen, ["log_likelihood"])["log_likelihood"].double().mean())
    return {
        "data": Path(options.data).stem, "layer": options.layer, "components": k, "seed": seed, "moves": mixture.moves,
        "accepted": "+".join(map(str, mixture.accepted_)), "bound": mixture.bound_, "held_out": likelihood,
        "fit_cpu_s": round(seconds, 1),
    }  # fmt: skip


def main() -> None:
    """Append rows to results/moves.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("layer", nargs="?", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=FOLDER / "results/moves.csv")
    options = parser.parse_args()
    set_threads(1)
    rows = pd.read_csv(options.out).to_dict("records") if options.out.is_file() else []
    for seed in range(options.seeds):
        for moves in (False, True):
            measured = of_planted if options.data == "planted" else of_images
            rows += measured(options, seed, moves)
            print(rows[-1], flush=True)
            pd.DataFrame(rows).to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
