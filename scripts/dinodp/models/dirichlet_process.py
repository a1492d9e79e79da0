"""Truncated Dirichlet process mixture of Gaussians, fitted by online EM on sufficient statistics.

Source: Schulthess & Konukoglu, MICCAI 2025, arXiv 2509.19997; docs/method.md maps each equation to its function.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as functional

from dinodp.errors import InputError, require_known
from dinodp.jobs.processes import Group, sum_over
from dinodp.models.full_covariance import LOG_2PI, SLACK, FullComponents, columns_by_row
from dinodp.options.choices import DISTANCES, MIXTURE_SCORES, CovarianceType, Distance, Init, Schedule

EPS = float(np.finfo(np.float32).eps)
ACTIVE_WEIGHT = 1e-6
ROUNDING = 1e-5  # of a length, far above float32's
ROWS_PER_CHUNK = 2048  # embeddings per matrix product: bounds memory at a few [chunk, K] arrays
ROWS_PER_LARGE_CHUNK = 8192
NEGLIGIBLE = EPS * EPS  # a responsibility below this is zero: K of them are lost in float32's rounding of the largest


class DirichletProcessMixture:
    """Dirichlet process mixture, truncated at ``n_components`` = K, fitted one mini-batch at a time.

    Parameters are float32 on ``device``: ``stick_fractions_`` [K], ``weights_`` [K], ``means_`` [K, D],
    ``covariances_`` (diag [K, D], spherical [K], full [K, D, D]), ``concentration_``. Sufficient statistics are kept in
    float64 for diag and spherical, since the variance is a small difference of them.
    With a ``process_group`` of torch.distributed, each of its processes gives ``partial_fit`` its part of the batch.
    Raises InputError for unknown options and for embeddings that are not finite or of another dimension.
    """

    def __init__(
        self,
        n_components: int,
        covariance_type: CovarianceType = "diag",
        reg_covar: float | None = None,
        step_schedule: Schedule = "ema",
        step_rate: float = 0.2,
        concentration: float = 2.0,
        fix_concentration: bool = False,
        device: str = "cpu",
        process_group: Group | None = None,
    ) -> None:
        require_known("covariance type", covariance_type, get_args(CovarianceType))
        require_known("step schedule", step_schedule, get_args(Schedule))
        if n_components < 2:
            raise InputError(f"n_components is {n_components}: a mixture needs at least 2.")
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.reg_covar = reg_covar if reg_covar is not None else 1e-3 if covariance_type == "full" else 1e-6
        self.step_schedule = step_schedule
        self.step_rate = step_rate
        self.concentration = concentration
        self.fix_concentration = fix_concentration
        self.device = torch.device(device)
        self.process_group = process_group
        self.step_count_ = 0

    # --- start ---------------------------------------------------------------------------------------------------

    def initialize(
        self,
        batch: torch.Tensor,
        *,
        generator: torch.Generator,
        init: Init = "spread",
        candidates: torch.Tensor | None = None,
    ) -> None:
        """Start from the first batch [n, D]; variances are its diagonal variance.

        ``paper``: means are a permutation of the first K embeddings of ``batch``. ``spread``: K embeddings drawn from
        ``candidates`` [m, D] (drawn over the training set; ``batch`` itself if not given).
        """
        require_known("initialisation", init, get_args(Init))
        batch = finite_matrix(batch)
        pool = batch[: self.n_components] if init == "paper" else batch
        if init == "spread" and candidates is not None:
            pool = finite_matrix(candidates, batch.shape[1])
        if len(pool) < self.n_components:
            raise InputError(
                f"{len(pool)} embeddings cannot start {self.n_components} components: "
                "give more embeddings or fewer components."
            )
        order = torch.randperm(len(pool), generator=generator)[: self.n_components]
        uniform = torch.rand(self.n_components, generator=generator, dtype=torch.float64)
        # Beta(1, alpha) by its inverse distribution function
        sticks = 1 - (1 - uniform) ** (1 / self.concentration)
        sticks[-1] = 1.0
        variance = batch.double().var(dim=0, correction=1).float() + self.reg_covar
        self._set_parameters(
            sticks, pool[order.to(pool.device)], self._broadcast_variance(variance), self.concentration
        )
        self._reset_statistics()

    def _broadcast_variance(self, variance: torch.Tensor) -> torch.Tensor:
        k = self.n_components
        if self.covariance_type == "diag":
            return variance.expand(k, -1).clone()
        if self.covariance_type == "spherical":
            return variance.mean().expand(k).clone()
        return torch.diag(variance).expand(k, -1, -1).clone()

    def _reset_statistics(self) -> None:
        k, d = self.means_.shape
        self._s0, self._s1, self._s2 = (
            torch.zeros(shape, dtype=torch.float64, device=self.device)
            for shape in ((k,), (k, d), self._covariance_shape(k, d))
        )
        self.step_count_ = 0

    def _set_parameters(
        self, sticks: torch.Tensor, means: torch.Tensor, covariances: torch.Tensor, concentration: float
    ) -> None:
        self.stick_fractions_ = sticks.to(self.device, torch.float32)
        self.means_ = means.to(self.device, torch.float32).clone()
        self.covariances_ = covariances.to(self.device, torch.float32).clone()
        self.concentration_ = float(concentration)
        self._prepare()

    def _prepare(self) -> None:
        """Everything that follows from the parameters: weights, precisions and log-determinants."""
        sticks = self.stick_fractions_.double()
        remaining = torch.cat([torch.zeros_like(sticks[:1]), torch.log1p(-sticks[:-1]).cumsum(0)])
        self._log_weights = (sticks.log() + remaining).float()
        self.weights_ = self._log_weights.exp()
        self.active_ = self.weights_ > ACTIVE_WEIGHT
        self._active = torch.nonzero(self.active_).flatten()
        # Centred on the mixture's mean, the expanded quadratic form loses fewer digits in float32.
        share = self.weights_ / self.weights_.sum().clamp_min(EPS)
        self._centre = share @ self.means_
        if self.covariance_type == "full":
            self._prepare_full()
        else:
            self._prepare_separable()

    def _prepare_separable(self) -> None:
        d = self.means_.shape[1]
        variances = self.covariances_ if self.covariance_type == "diag" else self.covariances_[:, None]
        self._precisions = 1 / variances  # [K, D] or [K, 1]
        log_determinants = variances.double().log().sum(1) * (d / variances.shape[1])
        self._log_peaks = self._log_weights - 0.5 * (d * LOG_2PI + log_determinants)  # at the mean, [K]

    def _prepare_full(self) -> None:
        means = self.means_ - self._centre
        self._full = FullComponents(self._log_weights, means, self.covariances_, math.log(NEGLIGIBLE))

    # --- E-step --------------------------------------------------------------------------------------------------

    def _weighted_log_densities(self, centred: torch.Tensor, used: torch.Tensor | None = None) -> torch.Tensor:
        """log pi_k + log N(x; mean_k, covariance_k) for x - centre [n, D], as [n, K'] of the components ``used``."""
        used = torch.arange(self.n_components, device=self.device) if used is None else used
        if self.covariance_type == "full":
            return self._full.log_densities(centred, used)
        means, precisions, peaks = self.means_[used] - self._centre, self._precisions[used], self._log_peaks[used]
        if self.covariance_type == "spherical":
            squared = centred.square().sum(1, keepdim=True) + means.square().sum(1) - 2 * centred @ means.T
            return peaks.float() - 0.5 * squared.clamp_min_(0) * precisions[:, 0]
        # -(x - m)^2 / (2 s^2) = x m/s^2 - x^2/(2 s^2) - m^2/(2 s^2): two matrix products
        constant = peaks - 0.5 * (means.square() * precisions).double().sum(1)
        out = torch.addmm(constant.float(), centred, (means * precisions).T)
        return out.addmm_(centred.square(), precisions.T, alpha=-0.5)

    def _relevant_log_densities(self, centred: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Components [K'] that no bound proves negligible for x - centre [n, D], and their weighted log-densities.

        (x - m)' S^-1 (x - m) >= (|x| - |m|)^2 / largest variance: where that leaves the log-density of a component
        below NEGLIGIBLE times the best active one's for every x, its responsibilities are zero and it is left out.
        """
        if self.covariance_type == "full":  # leaves them out pair by pair
            return torch.arange(self.n_components, device=self.device), self._weighted_log_densities(centred)
        active = self._active
        densities = self._weighted_log_densities(centred, active)
        lengths, means = (centred + self._centre).norm(dim=1), self.means_.norm(dim=1)
        gaps = torch.maximum(lengths.min() - means, means - lengths.max()) - ROUNDING * (lengths.max() + means)
        bounds = self._log_peaks - 0.5 * gaps.clamp_min(0).square() * self._precisions.amin(1)
        reached = bounds >= densities.amax(1).min() + math.log(NEGLIGIBLE) - SLACK
        others = torch.nonzero(reached & ~self.active_).flatten()
        if len(others):
            densities = torch.cat([densities, self._weighted_log_densities(centred, others)], dim=1)
        return torch.cat([active, others]), densities

    def _chunks(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Rows of ``x`` minus the centre, a bounded number at a time.

        More on a GPU, which waits for the host between chunks, and for full covariance, as each component sees few.
        """
        fewer = self.device.type == "cpu" and self.covariance_type != "full"
        for chunk in x.split(ROWS_PER_CHUNK if fewer else ROWS_PER_LARGE_CHUNK):
            yield chunk.to(self.device, torch.float32) - self._centre

    def responsibilities(self, x: torch.Tensor) -> torch.Tensor:
        """Posterior probability [n, K] of each component for embeddings [n, D]."""
        x = self._checked(x)
        return torch.cat([_posterior(self._weighted_log_densities(chunk))[0] for chunk in self._chunks(x)])

    # --- M-step --------------------------------------------------------------------------------------------------

    def partial_fit(self, batch: torch.Tensor) -> "DirichletProcessMixture":
        """One online EM step on embeddings [n, D]; ``batch_log_likelihood_`` is their mean before the step.

        In a process group the step is one on the parts of all processes together; then a part may be empty.
        Raises InputError for embeddings that are not finite or not [n, D].
        """
        if len(batch) or self.process_group is None:
            batch = self._checked(batch)
        n, s0, s1, s2, log_likelihood = self._batch_statistics(batch)
        self.step_count_ += 1
        step = self.step_rate if self.step_schedule == "ema" else self.step_count_**-self.step_rate
        for old, new in ((self._s0, s0), (self._s1, s1), (self._s2, s2)):
            old.mul_(1 - step).add_(new, alpha=step)
        self.batch_log_likelihood_ = log_likelihood
        self._maximise(n)
        return self

    def _batch_statistics(self, batch: torch.Tensor) -> tuple[int, torch.Tensor, torch.Tensor, torch.Tensor, float]:
        """n and means over the batch: r, r x, r x x' (or its diagonal, or that diagonal's mean), log-likelihood."""
        s0, s1, s2 = torch.zeros_like(self._s0), torch.zeros_like(self._s1), torch.zeros_like(self._s2)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for chunk in self._chunks(batch) if len(batch) else ():
            used, densities = self._relevant_log_densities(chunk)
            r, log_likelihood = _posterior(densities)
            total += log_likelihood.double().sum()
            s0.index_add_(0, used, r.sum(0, dtype=torch.float64))
            s1.index_add_(0, used, (r.T @ chunk).double())
            self._add_second_moment(s2, used, r, chunk)
        count, likelihood = sum_over(self.process_group, (len(batch), float(total)), s0, s1, s2)
        n, c = int(count), self._centre.double()
        s0, s1, s2 = s0 / n, s1 / n, s2.div_(n)
        return n, s0, s1 + s0[:, None] * c, self._uncentre(s0, s1, s2, c), likelihood / n

    def _add_second_moment(
        self, s2: torch.Tensor, used: torch.Tensor, r: torch.Tensor, centred: torch.Tensor
    ) -> None:
        """Add the sums of r x x' (see above) of the components ``used`` [K']; r is [n, K']."""
        if self.covariance_type == "diag":
            s2.index_add_(0, used, (r.T @ centred.square()).double())
        elif self.covariance_type == "spherical":
            s2.index_add_(0, used, (r.T @ centred.square().mean(1)).double())
        else:
            for k, rows in columns_by_row((r > 0).T):
                x = centred[rows]
                s2[k] += (x * r[rows, k, None]).T @ x

    def _uncentre(self, s0: torch.Tensor, s1: torch.Tensor, s2: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Second moment of x from the moments of x - c."""
        if self.covariance_type == "diag":
            return s2 + 2 * s1 * c + s0[:, None] * c.square()
        if self.covariance_type == "spherical":
            return s2 + 2 * (s1 * c).mean(1) + s0 * c.square().mean()
        # s2 + s1 c' + c s1' + s0 c c', in one pass over [K, D, D]
        half, c = s1 + s0[:, None] * c / 2, c.expand_as(s1)
        return s2.baddbmm_(torch.stack([half, c], dim=2), torch.stack([c, half], dim=1))

    def _maximise(self, n: int) -> None:
        """Parameters from the blended statistics."""
        norm = self._s0 + EPS
        means = self._s1 / norm[:, None]
        tail = self._s0.flip(0).cumsum(0).flip(0) - self._s0
        prior = (self.concentration_ - 1) / n
        sticks = (self._s0 / (self._s0 + prior + tail + EPS)).clamp(0, 1)
        concentration = self.concentration_ if self.fix_concentration else self._concentration(tail, n)
        self._set_parameters(sticks, means, self._covariances(means, norm), concentration)

    def _covariances(self, means: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        """A variance is never below reg_covar but by rounding, which the clamp removes."""
        if self.covariance_type == "full":
            covariances = (self._s2 / norm[:, None, None]).baddbmm_(means[:, :, None], means[:, None, :], alpha=-1)
            covariances.diagonal(dim1=1, dim2=2).add_(self.reg_covar)
            return covariances
        if self.covariance_type == "spherical":
            variances: torch.Tensor = self._s2 / norm - means.square().mean(1)
        else:
            variances = self._s2 / norm[:, None] - means.square()
        return (variances + self.reg_covar).clamp_min(self.reg_covar)

    def _concentration(self, tail: torch.Tensor, n: int) -> float:
        """(K-1) / sum_k [psi(n (S0_k + T_k) + alpha + 1) - psi(n T_k + alpha)], T_k the statistics after k."""
        a = self.concentration_
        terms = torch.digamma(n * (self._s0 + tail) + a + 1) - torch.digamma(n * tail + a)
        return float((self.n_components - 1) / terms[:-1].sum())

    # --- scores --------------------------------------------------------------------------------------------------

    def score_samples(self, x: torch.Tensor) -> torch.Tensor:
        """Log-likelihood [n] of embeddings [n, D] (natural logarithm), over active components only."""
        return -self.scores(x, ["log_likelihood"])["log_likelihood"]

    def distances(self, x: torch.Tensor, kind: Distance = "cosine") -> torch.Tensor:
        """Distance [n] of embeddings [n, D] to the nearest active component's mean.

        ``cosine`` is 1 - cosine similarity; ``mahalanobis`` is the square root of the quadratic form.
        """
        require_known("distance", kind, DISTANCES)
        return self.scores(x, [kind])[kind]

    def scores(self, x: torch.Tensor, names: Sequence[str] = MIXTURE_SCORES) -> dict[str, torch.Tensor]:
        """Scores [n] of embeddings [n, D], higher is more anomalous: distances, and minus the ``log_likelihood``.

        What two of them need is computed once. Raises InputError for a name that is not in ``MIXTURE_SCORES``.
        """
        for name in names:
            require_known("score of a mixture", name, MIXTURE_SCORES)
        x = self._checked(x)
        parts = [self._chunk_scores(chunk, self._active, names) for chunk in self._chunks(x)]
        return {name: torch.cat([part[name] for part in parts]) for name in names}

    def _chunk_scores(
        self, centred: torch.Tensor, active: torch.Tensor, names: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        needed, found = set(names), {}
        if "cosine" in needed:
            found["cosine"] = 1 - self._cosines(centred, active).amax(1)
        if "euclidean" in needed:
            found["euclidean"] = self._euclidean(centred, active)
        if "mahalanobis" in needed and self.covariance_type == "full":
            found["mahalanobis"] = self._full.nearest_distance(centred, active)
        if needed - set(found):
            densities = self._weighted_log_densities(centred, active)
            if "mahalanobis" in needed - set(found):
                found["mahalanobis"] = self._mahalanobis(centred, active, densities)
            if "log_likelihood" in needed:  # last: it overwrites the densities
                found["log_likelihood"] = -_posterior(densities)[1]
        return found

    def assign(self, x: torch.Tensor) -> torch.Tensor:
        """Index [n], int64, of the active component with the highest cosine similarity to each embedding [n, D]."""
        x = self._checked(x)
        active = self._active
        return active[torch.cat([self._cosines(chunk, active).argmax(1) for chunk in self._chunks(x)])]

    def _cosines(self, centred: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        x = functional.normalize(centred + self._centre, dim=1)
        return x @ functional.normalize(self.means_[active], dim=1).T

    def _euclidean(self, centred: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        means = self.means_[active] - self._centre
        nearest = torch.addmm(means.square().sum(1), centred, means.T, alpha=-2).argmin(1)
        return (centred - means[nearest]).square_().sum(1).sqrt_()

    def _mahalanobis(self, centred: torch.Tensor, active: torch.Tensor, densities: torch.Tensor) -> torch.Tensor:
        """Smallest sqrt(sum (x - m)^2 / s^2) [n]: nearest by the log-densities, distance from the difference."""
        nearest = active[(densities - self._log_peaks[active].float()).argmax(1)]
        return ((centred + self._centre - self.means_[nearest]).square_() * self._precisions[nearest]).sum(1).sqrt_()

    # --- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that training and scoring need: parameters, sufficient statistics, step count."""
        self._require_parameters()
        return {
            "stick_fractions": self.stick_fractions_.cpu(),
            "means": self.means_.cpu(),
            "covariances": self.covariances_.cpu(),
            "concentration": self.concentration_,
            "s0": self._s0.cpu(),
            "s1": self._s1.cpu(),
            "s2": self._s2.cpu(),
            "step_count": self.step_count_,
        }

    def load_state(self, state: Mapping[str, Any]) -> "DirichletProcessMixture":
        """Take parameters (``stick_fractions`` [K], ``means`` [K, D], ``covariances``, ``concentration``).

        Without ``s0``, ``s1``, ``s2`` and ``step_count`` the statistics are zero and the step count is 0.
        Raises InputError when a key is missing or a shape does not fit K and the covariance type.
        """
        needed = ("stick_fractions", "means", "covariances", "concentration")
        if missing := [key for key in needed if key not in state]:
            raise InputError(f"The state of a mixture lacks {', '.join(missing)}: it needs {', '.join(needed)}.")
        sticks, means, covariances = (torch.as_tensor(np.array(state[key])) for key in needed[:3])
        self._check_shapes(sticks, means, covariances)
        self._set_parameters(sticks, means, covariances, float(state["concentration"]))
        self._reset_statistics()
        if "s0" in state:
            for name in ("s0", "s1", "s2"):
                setattr(self, f"_{name}", torch.as_tensor(np.array(state[name])).to(self.device, torch.float64).clone())
            self.step_count_ = int(state["step_count"])
        return self

    def _check_shapes(self, sticks: torch.Tensor, means: torch.Tensor, covariances: torch.Tensor) -> None:
        k, d = self.n_components, means.shape[-1]
        expected = self._covariance_shape(k, d)
        found = (tuple(sticks.shape), tuple(means.shape), tuple(covariances.shape))
        if found != ((k,), (k, d), expected):
            raise InputError(
                f"Stick fractions, means and covariances have shapes {found}, but a {self.covariance_type} mixture of "
                f"{k} components needs {((k,), (k, d), expected)}."
            )

    def _covariance_shape(self, k: int, d: int) -> tuple[int, ...]:
        return {"diag": (k, d), "spherical": (k,), "full": (k, d, d)}[self.covariance_type]

    def _require_parameters(self) -> None:
        if not hasattr(self, "means_"):
            raise InputError("The mixture has no parameters yet: call initialize or load_state first.")

    def _checked(self, x: torch.Tensor) -> torch.Tensor:
        self._require_parameters()
        return finite_matrix(x, self.means_.shape[1])


def _posterior(log_densities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Responsibilities [n, K], in the place of the weighted log-densities [n, K], and log-likelihood [n].

    What is below NEGLIGIBLE of the largest becomes zero, which changes a sum by less than K NEGLIGIBLE. It is clamped
    before the exponential: subnormal numbers would make that an order of magnitude slower.
    """
    largest = log_densities.amax(1, keepdim=True)
    relative = log_densities.sub_(largest).clamp_min_(math.log(NEGLIGIBLE)).exp_()
    torch.threshold_(relative, NEGLIGIBLE * (1 + 1e-3), 0.0)
    total = relative.sum(1, keepdim=True)
    return relative.div_(total), (largest + total.log()).squeeze(1)


def finite_matrix(x: torch.Tensor, dim: int | None = None) -> torch.Tensor:
    """``x`` if it is [n, dim], n > 0, and finite."""
    if x.ndim != 2 or len(x) == 0 or (dim is not None and x.shape[1] != dim):
        raise InputError(
            f"Embeddings have shape {tuple(x.shape)}; [n, {'D' if dim is None else dim}] with n > 0 is needed."
        )
    # a sum is finite unless a value is not, or it overflows: only then look at every value
    if not (bool(torch.isfinite(x.sum())) or bool(torch.isfinite(x).all())):
        raise InputError("Embeddings contain values that are not finite.")
    return x
