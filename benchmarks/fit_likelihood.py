"""CPU time to equal held-out log-likelihood: our online mixture against scikit-learn's BayesianGaussianMixture.

A step of ours, which skips dead components on a mini-batch, and an iteration of its variational EM over all data are
not the same work, so what is compared is what both are for. Same embeddings, K, concentration and regularisation; both
likelihoods by one function, of the mixture's weights, means and variances as they are after each of our epochs and each
of its iterations, starts included: ours from spread embeddings, its from k-means (its default) or from embeddings.
The target of a pair is the lower of the two best likelihoods, less a tolerance. Reach: a third.
"""

import warnings
from argparse import Namespace
from collections.abc import Callable
from time import process_time
from typing import Any

import numpy as np
import torch
from made_data import clustered
from runner import Row, arguments, median, report, spread
from sklearn.mixture import BayesianGaussianMixture

from dinodp.models import DirichletProcessMixture
from dinodp.options.choices import CONCENTRATION, REG_COVAR

N, HELD_OUT, D, K, BATCH = 24_576, 6_144, 384, 100, 2_048
EPOCHS, ITERATIONS = 20, 30
TOLERANCE = 0.5  # nats of an embedding, of a likelihood of about 1,100
Curve = list[tuple[float, float]]  # CPU seconds, held-out log-likelihood


def log_likelihood(x: torch.Tensor, weights: Any, means: Any, variances: Any) -> float:
    """Mean log-likelihood of rows [n, D] under a mixture of diagonal Gaussians, in float64."""
    w, m, v = (torch.as_tensor(np.asarray(part), dtype=torch.float64) for part in (weights, means, variances))
    x = x.double()
    squared = x.square() @ (1 / v).T - 2 * x @ (m / v).T + (m.square() / v).sum(1)
    logs = w.clamp(min=1e-300).log() - 0.5 * (squared + v.log().sum(1) + D * np.log(2 * np.pi))
    return float(logs.logsumexp(1).mean())


class Watch:
    """The CPU time of a fit, without that of looking at it."""

    def __init__(self, look: Callable[[Any], float]) -> None:
        self.look, self.curve, self.start = look, Curve(), process_time()

    def __call__(self, model: Any) -> None:
        now = process_time()
        self.curve.append((now - self.start, self.look(model)))
        self.start += process_time() - now


class Watched(BayesianGaussianMixture):
    """scikit-learn's, seen after each iteration."""

    watch: Watch

    def _m_step(self, X: np.ndarray, log_resp: np.ndarray, **rest: Any) -> None:
        super()._m_step(X, log_resp, **rest)
        self.watch(self)


def sticks(model: Watched) -> np.ndarray:
    """Expected weights [K] of scikit-learn's sticks."""
    a, b = model.weight_concentration_
    share = a / (a + b)
    weights = share * np.append(1, np.cumprod(1 - share)[:-1])
    return weights / weights.sum()


def ours(x: torch.Tensor, held: torch.Tensor, seed: int) -> Curve:
    generator = torch.Generator().manual_seed(seed)
    mixture = DirichletProcessMixture(K)
    watch = Watch(lambda m: log_likelihood(held, m.weights_, m.means_, m.components_.covariances))
    mixture.initialize(x[:BATCH], generator=generator, init="spread", candidates=x)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            mixture.partial_fit(x[rows])
        watch(mixture)
    return watch.curve


def theirs(x: torch.Tensor, held: torch.Tensor, seed: int, start: str) -> Curve:
    model = Watched(
        n_components=K, covariance_type="diag", max_iter=ITERATIONS, tol=0, init_params=start,
        reg_covar=REG_COVAR, weight_concentration_prior=CONCENTRATION, random_state=seed,
    )  # fmt: skip
    array = x.numpy()
    model.watch = Watch(lambda m: log_likelihood(held, sticks(m), m.means_, m.covariances_))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        model.fit(array)
    return model.watch.curve


def time_to(curve: Curve, target: float) -> float:
    """CPU seconds until the likelihood is reached."""
    return next(seconds for seconds, value in curve if value >= target)


def row_of(start: str, pairs: list[tuple[Curve, Curve]]) -> Row:
    """Pairs of curves, ours and its from one start, as a ratio of the times to the likelihood that both reach."""
    bests = np.array([[max(value for _, value in curve) for curve in pair] for pair in pairs])
    targets = bests.min(axis=1) - TOLERANCE
    times = np.array([[time_to(c, target) for c in pair] for pair, target in zip(pairs, targets, strict=True)])
    about = {"n": N, "held_out": HELD_OUT, "k": K, "batch": BATCH, "tolerance": TOLERANCE, "repeats": len(pairs)}
    return {
        "what": f"CPU time to equal held-out log-likelihood / BayesianGaussianMixture from {start}",
        **about,
        "ours_s": median(times[:, 0]),
        "other_s": median(times[:, 1]),
        "ours_best": spread(bests[:, 0]),
        "other_best": spread(bests[:, 1]),
        "ratio": {"cpu": spread(times[:, 0] / times[:, 1])},
        "curves_of_the_first": [[[round(s, 3), round(v, 3)] for s, v in curve] for curve in pairs[0]],
    }


def measure(options: Namespace) -> list[Row]:
    x, held = clustered(N, D, seed=0), clustered(HELD_OUT, D, seed=1)
    starts = ("kmeans", "random_from_data")
    pairs: dict[str, list[tuple[Curve, Curve]]] = {start: [] for start in starts}
    for seed in range(options.repeats):
        for start in starts:
            pairs[start].append((ours(x, held, seed), theirs(x, held, seed, start)))
    return [row_of(start, pairs[start]) for start in starts]


if __name__ == "__main__":
    options = arguments(__doc__)
    report("fit_likelihood", measure(options), options)
