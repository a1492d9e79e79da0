"""What the mixtures share: online EM on sufficient statistics, scores, and the state that a file holds.

The weights are those of broken sticks, weight_k = stick_k prod_{j<k} (1 - stick_j); where the sticks break is the
prior's, and each mixture's own.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, get_args

import numpy as np
import torch

from dinodp.errors import InputError, require_known
from dinodp.jobs.processes import Group, sum_over
from dinodp.models.components import EPS, Components, HasComponents, finite_matrix, posterior, rows_at_once
from dinodp.models.full_covariance import FullComponents
from dinodp.models.separable_covariance import DiagonalComponents, SphericalComponents
from dinodp.options.choices import DISTANCES, MIXTURE_SCORES, CovarianceType, Distance, Init, Schedule

COVARIANCE_TYPES: dict[CovarianceType, type[Components]] = {
    "diag": DiagonalComponents,
    "full": FullComponents,
    "spherical": SphericalComponents,
}


class OnlineMixture(HasComponents, ABC):
    """Mixture of K = ``n_components`` Gaussians, fitted one mini-batch at a time.

    Parameters are float32 on ``device``: ``stick_fractions_`` [K], ``weights_`` [K], ``means_`` [K, D],
    ``covariances_`` (diag [K, D], spherical [K], full [K, D, D]), ``concentration_``. Sufficient statistics are kept in
    float64, since a variance is a small difference of them.
    With a ``process_group`` of torch.distributed, each of its processes gives ``partial_fit`` its part of the batch.
    Raises InputError for unknown options and for embeddings that are not finite or of another dimension.
    """

    concentration_: float

    def __init__(
        self,
        n_components: int,
        covariance_type: CovarianceType,
        reg_covar: float | None,
        step_schedule: Schedule,
        step_rate: float,
        device: str,
        process_group: Group | None,
    ) -> None:
        require_known("covariance type", covariance_type, COVARIANCE_TYPES)
        require_known("step schedule", step_schedule, get_args(Schedule))
        if n_components < 2:
            raise InputError(f"n_components is {n_components}: a mixture needs at least 2.")
        self.n_components = n_components
        self.covariance_type = covariance_type
        self._kind = COVARIANCE_TYPES[covariance_type]
        self.reg_covar = self._kind.default_reg if reg_covar is None else reg_covar
        self.step_schedule = step_schedule
        self.step_rate = step_rate
        self.device = torch.device(device)
        self.process_group = process_group
        self.step_count_ = 0

    # --- the prior -------------------------------------------------------------------------------------------------

    @abstractmethod
    def _start_sticks(self, uniform: torch.Tensor) -> torch.Tensor:
        """Stick fractions [K] at the start, from uniform numbers [K], float64."""

    @abstractmethod
    def _start_concentration(self) -> float:
        """Concentration at the start."""

    @abstractmethod
    def _next_concentration(self, tail: torch.Tensor, n: int) -> float:
        """Concentration after a step on n embeddings, from the statistics after each component, ``tail`` [K]."""

    # --- start -----------------------------------------------------------------------------------------------------

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
        sticks = self._start_sticks(torch.rand(self.n_components, generator=generator, dtype=torch.float64))
        variance = batch.double().var(dim=0, correction=1).float() + self.reg_covar
        covariances = self._kind.equal(variance, self.n_components)
        self._set_parameters(sticks, pool[order], covariances, self._start_concentration())
        self._reset_statistics()

    def _reset_statistics(self) -> None:
        k, d = self.means_.shape
        self._s0, self._s1, self._s2 = (
            torch.zeros(shape, dtype=torch.float64, device=self.device) for shape in ((k,), (k, d), self._shape(k, d))
        )
        self.step_count_ = 0

    def _set_parameters(
        self, sticks: torch.Tensor, means: torch.Tensor, covariances: torch.Tensor, concentration: float
    ) -> None:
        """Take parameters, and all that follows from them."""
        self.stick_fractions_ = sticks.to(self.device, torch.float32)
        self.concentration_ = float(concentration)
        means, covariances = (values.to(self.device, torch.float32).clone() for values in (means, covariances))
        self.components_ = self._kind(log_weights(self.stick_fractions_), means, covariances)

    # --- E-step ----------------------------------------------------------------------------------------------------

    def _chunks(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Rows of ``x`` minus the centre, a bounded number at a time."""
        for chunk in x.split(rows_at_once(self.device, self._kind.rows_per_chunk)):
            yield chunk.to(self.device, torch.float32) - self.components_.centre

    def responsibilities(self, x: torch.Tensor) -> torch.Tensor:
        """Posterior probability [n, K] of each component for embeddings [n, D]."""
        x, every = self._checked(x), torch.arange(self.n_components, device=self.device)
        return torch.cat([posterior(self.components_.log_densities(chunk, every))[0] for chunk in self._chunks(x)])

    # --- M-step ----------------------------------------------------------------------------------------------------

    def partial_fit(self, batch: torch.Tensor) -> Self:
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
        """n and means over the batch: r, r x, second moments as the covariance type has them, log-likelihood."""
        s0, s1, s2 = torch.zeros_like(self._s0), torch.zeros_like(self._s1), torch.zeros_like(self._s2)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for chunk in self._chunks(batch) if len(batch) else ():
            used, densities = self.components_.relevant_log_densities(chunk)
            r, log_likelihood = posterior(densities)
            total += log_likelihood.double().sum()
            s0.index_add_(0, used, r.sum(0, dtype=torch.float64))
            s1.index_add_(0, used, (r.T @ chunk).double())
            self._kind.add_second_moment(s2, used, r, chunk)
        count, likelihood = sum_over(self.process_group, (len(batch), float(total)), s0, s1, s2)
        n, c = int(count), self.components_.centre.double()
        s0, s1, s2 = s0 / n, s1 / n, s2.div_(n)
        return n, s0, s1 + s0[:, None] * c, self._kind.uncentre(s0, s1, s2, c), likelihood / n

    def _maximise(self, n: int) -> None:
        """Parameters from the blended statistics."""
        norm = self._s0 + EPS
        means = self._s1 / norm[:, None]
        tail = self._s0.flip(0).cumsum(0).flip(0) - self._s0
        prior = (self.concentration_ - 1) / n
        sticks = (self._s0 / (self._s0 + prior + tail + EPS)).clamp(0, 1)
        covariances = self._kind.maximise(self._s2, means, norm, self.reg_covar)
        self._set_parameters(sticks, means, covariances, self._next_concentration(tail, n))

    # --- scores ----------------------------------------------------------------------------------------------------

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
        parts = [self._chunk_scores(chunk, set(names)) for chunk in self._chunks(x)]
        return {name: torch.cat([part[name] for part in parts]) for name in names}

    def _chunk_scores(self, centred: torch.Tensor, names: set[str]) -> dict[str, torch.Tensor]:
        components, found, densities = self.components_, {}, None
        if "cosine" in names:
            found["cosine"] = 1 - components.cosines(centred).amax(1)
        if "euclidean" in names:
            found["euclidean"] = components.nearest_euclidean(centred)
        if "log_likelihood" in names:
            densities = components.log_densities(centred, components.active)
        if "mahalanobis" in names:
            known = densities if components.uses_densities else None
            found["mahalanobis"] = components.nearest_mahalanobis(centred, known)
        if densities is not None:  # last: it overwrites the densities
            found["log_likelihood"] = -posterior(densities)[1]
        return found

    # --- state -----------------------------------------------------------------------------------------------------

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

    def load_state(self, state: Mapping[str, Any]) -> Self:
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
        expected = ((k,), (k, d), self._shape(k, d))
        found = (tuple(sticks.shape), tuple(means.shape), tuple(covariances.shape))
        if found != expected:
            raise InputError(
                f"Stick fractions, means and covariances have shapes {found}, but a {self.covariance_type} mixture of "
                f"{k} components needs {expected}."
            )

    def _shape(self, k: int, d: int) -> tuple[int, ...]:
        return self._kind.shape(k, d)


def log_weights(sticks: torch.Tensor) -> torch.Tensor:
    """Log-weights [K] of stick fractions [K]: log stick_k + sum_{j<k} log(1 - stick_j), float32."""
    sticks = sticks.double()
    remaining = torch.cat([torch.zeros_like(sticks[:1]), torch.log1p(-sticks[:-1]).cumsum(0)])
    return (sticks.log() + remaining).float()
