"""Empirical Bayes Dirichlet mixture with held-out shrinkage: a mixture of many components that few data do not overfit.

Mean-field variational Bayes of a truncated Dirichlet process mixture of diagonal Gaussians by full passes from a
k-means++ start; its prior by type II maximum likelihood, and once more by subjects that were not fitted. docs/method.md
has the equations and what differs from the paper's mixture.
"""

import math
from typing import Self

import torch

from dinodp.errors import InputError
from dinodp.models.calibrated_components import CalibratedComponents, quadratic_forms
from dinodp.models.normal_gamma import NormalGamma, Prior, Statistics
from dinodp.models.row_stream import Reader, RowStream
from dinodp.models.spherical_k_means import nearest, spherical_k_means
from dinodp.models.stick_breaking import Sticks

FIRST_ALPHA = 2.0
START_ROWS_PER_COMPONENT = 6  # at least
HELD_OUT_NU = (10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
SMALLEST_INFLATION = 1e-6
LOWEST_LOG_RESPONSIBILITY = -40.0  # below float32's rounding of a sum; subnormal exponentials would be slow


class EmpiricalBayesMixture(CalibratedComponents):
    """Fit with `fit`, adapt to other subjects with `calibrate`, score with `scores`.

    K = ``n_components`` is a truncation level; ``passes`` of variational EM follow ``lloyd_passes`` of spherical
    k-means, which start from k-means++ on max(``start_embeddings``, 6 K) embeddings. ``volume_exponent`` is gamma of
    the calibrated distance. ``dtype`` is that of the fit's matrix products; its sums are float64.
    After a fit also ``prior_`` and ``bounds_`` (per embedding, one per pass).
    Raises InputError for embeddings that are not finite or of another dimension.
    """

    def __init__(
        self,
        n_components: int = 500,
        *,
        passes: int = 12,
        lloyd_passes: int = 4,
        start_embeddings: int = 20_000,
        volume_exponent: float = 0.5,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        if n_components < 1 or passes < 1 or lloyd_passes < 0:
            raise InputError("n_components and passes must be at least 1, lloyd_passes at least 0.")
        self.n_components, self.passes, self.lloyd_passes = n_components, passes, lloyd_passes
        super().__init__(volume_exponent, device)
        self.start_embeddings = max(start_embeddings, START_ROWS_PER_COMPONENT * n_components)
        self.dtype = dtype

    # --- fit -------------------------------------------------------------------------------------------------------

    def fit(self, read: Reader, generator: torch.Generator) -> Self:
        """Fit to the embeddings of ``read()``, chunks [n, D] that are the same every time.

        It is called 3 + ``lloyd_passes`` + ``passes`` times. Memory: a chunk, K x D sums, the start's embeddings; time
        is linear in n. There are at most as many components as different embeddings at the start.
        """
        rows = self._rows(read)
        n, self._mean = rows.count_and_mean()
        centres = spherical_k_means(
            rows, n, self.n_components, start_rows=self.start_embeddings, passes=self.lloyd_passes, generator=generator
        )
        statistics = self._hard_statistics(rows, centres)
        prior, alpha, self.bounds_ = Prior.first(statistics), FIRST_ALPHA, list[float]()
        for _ in range(self.passes):
            gaussians, sticks = maximised(statistics, prior, alpha)
            prior, alpha = gaussians.prior, sticks.alpha
            statistics, bound = self._expected(rows, gaussians, sticks)
            self.bounds_.append(bound / n)
        self._gaussians, self._sticks = maximised(statistics, prior, alpha)
        self.prior_, self.alpha_, self.counts_ = self._gaussians.prior, self._sticks.alpha, self._gaussians.statistics.n
        self._use(self.prior_.nu, 1.0)
        return self

    def _rows(self, read: Reader, dim: int | None = None) -> RowStream:
        return RowStream(read, self.dtype, self.device, dim)

    def _hard_statistics(self, rows: RowStream, centres: torch.Tensor) -> Statistics:
        statistics = Statistics.zeros(centres)
        for chunk in rows:
            statistics.add_labels(nearest(chunk, centres)[1], chunk - self._mean)
        return statistics

    def _expected(self, rows: RowStream, gaussians: NormalGamma, sticks: Sticks) -> tuple[Statistics, float]:
        """Sums under a posterior, and the bound of all embeddings together."""
        means, variances = gaussians.means.to(self.dtype), gaussians.variances.to(self.dtype)
        offsets = (sticks.log_weights + gaussians.log_offsets()).to(self.dtype)
        statistics, total = Statistics.zeros(means), 0.0
        for chunk in rows:
            x = chunk - self._mean
            r, log_norm = _responsibilities(quadratic_forms(x, means, variances).mul_(-0.5).add_(offsets))
            total += float(log_norm.double().sum())
            statistics.add(r, x)
        return statistics, total - gaussians.divergence() - sticks.divergence()

    # --- held-out shrinkage ----------------------------------------------------------------------------------------

    def calibrate(self, read: Reader) -> Self:
        """Choose nu and the variances' inflation by the likelihood of embeddings of subjects that were not fitted.

        ``read`` as in `fit`; it is called once for each of ``HELD_OUT_NU``. Raises InputError for no embeddings.
        """
        rows = self._rows(read, self.components_.means.shape[1])
        _, inflation, nu = min((*self._held_out(rows, nu), nu) for nu in HELD_OUT_NU)
        self._use(nu, inflation)
        return self

    def _held_out(self, rows: RowStream, nu: float) -> tuple[float, float]:
        """Mean of min_k [Q_k + log|var_k|] after inflation, and the inflation, for one nu."""
        means, variances = self._gaussians.means.to(self.dtype), self._gaussians.shrunk(nu)
        volumes, n, quadratic, volume = variances.log().sum(1), 0, 0.0, 0.0
        for chunk in rows:
            forms = quadratic_forms(chunk - self._mean, means, variances.to(self.dtype))
            best = (forms + volumes.to(self.dtype)).argmin(1)
            quadratic += float(forms.gather(1, best[:, None]).double().sum())
            volume += float(volumes[best].sum())
            n += len(chunk)
        if n == 0:
            raise InputError("There is no held-out embedding to calibrate with.")
        d = means.shape[1]
        inflation = max(quadratic / n / d, SMALLEST_INFLATION)
        return d + d * math.log(inflation) + volume / n, inflation

    def _use(self, nu: float, inflation: float) -> None:
        """Set what the scores work with."""
        self.nu_, self.inflation_ = nu, inflation
        self._set_components(
            self._sticks.log_mean_weights,
            self._gaussians.means + self._mean,
            self._gaussians.shrunk(nu) * inflation,
        )


def maximised(statistics: Statistics, prior: Prior, alpha: float) -> tuple[NormalGamma, Sticks]:
    """Posterior and hyperparameters from sums over the data; components come in falling order of their sizes."""
    ordered = statistics.in_falling_order()
    return NormalGamma(prior.improved(ordered), ordered), Sticks.of(ordered.n, alpha)


def _responsibilities(log_joint: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Responsibilities [n, K], in the place of the log-joint densities, and their log-norm [n, 1]."""
    largest = log_joint.amax(1, keepdim=True)
    r = log_joint.sub_(largest).clamp_min_(LOWEST_LOG_RESPONSIBILITY).exp_()
    norm = r.sum(1, keepdim=True)
    return r.div_(norm), largest + norm.log()
