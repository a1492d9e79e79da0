"""What mixtures that are fitted by full passes of EM share: start, passes, and shrinkage by held-out embeddings."""

from abc import ABC, abstractmethod
from typing import Any, Protocol, Self

import torch

from dinodp.errors import InputError
from dinodp.models.row_stream import Reader, RowStream
from dinodp.models.spherical_k_means import nearest, spherical_k_means

START_ROWS_PER_COMPONENT = 6  # at least
ROWS_PER_COMPONENT = 10  # at least, of all; with fewer, artificial lesions are found worse (docs/beyond_the_paper.md)
HELD_OUT_NU = (10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
NO_HELD_OUT = "There is no held-out embedding to calibrate with."
OWNED = 0.5  # embeddings that a component explains before it counts as active
LOWEST_LOG_RESPONSIBILITY = -40.0  # below float32's rounding of a sum; subnormal exponentials would be slow


class Posterior(Protocol):
    """What is known of a mixture of K components after a pass."""

    @property
    def n(self) -> torch.Tensor:
        """Embeddings of each component [K], float64."""

    @property
    def alpha(self) -> float:
        """Concentration of the Dirichlet process."""

    @property
    def nu(self) -> float:
        """Strength of the prior of the components' spread, in embeddings."""

    def log_joint(self, x: torch.Tensor) -> torch.Tensor:
        """Expected log-joint densities [n, K] of vectors [n, D], in their dtype."""

    def divergence(self) -> float:
        """What the bound loses to the prior: the sum of the log-norms minus it never falls."""

    def updated(self, sums: Any) -> Self:
        """From the sums of another pass."""


class FullPassMixture(ABC):
    """Fit with `fit`, adapt to other subjects with `calibrate`.

    K = ``n_components`` is a truncation level; ``passes`` of EM follow ``lloyd_passes`` of spherical k-means, which
    start from k-means++ on max(``start_embeddings``, 6 K) embeddings. ``dtype`` is that of the fit's matrix products;
    its sums are float64. After a fit ``counts_`` [K] (training embeddings of each), ``nu_`` (strength of the prior),
    ``inflation_`` (factor of the spread), ``alpha_``, and of each pass ``bounds_`` (per embedding) and
    ``active_counts_`` (components that explain an embedding).
    Raises InputError for embeddings that are not finite or of another dimension.
    """

    counts_: torch.Tensor
    nu_: float
    inflation_: float
    alpha_: float

    def __init__(
        self,
        n_components: int = 500,
        *,
        passes: int = 12,
        lloyd_passes: int = 4,
        start_embeddings: int = 20_000,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        if n_components < 1 or passes < 1 or lloyd_passes < 0:
            raise InputError("n_components and passes must be at least 1, lloyd_passes at least 0.")
        self.n_components, self.passes, self.lloyd_passes = n_components, passes, lloyd_passes
        self.start_embeddings = max(start_embeddings, START_ROWS_PER_COMPONENT * n_components)
        self.dtype, self.device = dtype, torch.device(device)

    # --- what a kind of mixture is ---------------------------------------------------------------------------------

    @abstractmethod
    def _seen(self, chunk: torch.Tensor) -> torch.Tensor:
        """Embeddings [n, D] as the posterior takes them."""

    @abstractmethod
    def _no_sums(self, like: torch.Tensor) -> Any:
        """Sums of nothing, for as many components as ``like`` [K, D] has rows."""

    @abstractmethod
    def _first(self, sums: Any) -> Posterior:
        """From the sums of the clusters of the start."""

    @abstractmethod
    def _held_out(self, rows: RowStream, nu: float) -> tuple[float, float]:
        """How unlikely the best components make embeddings with another ``nu``, and the best factor of the spread.

        Both are means, of at least one embedding.
        """

    @abstractmethod
    def _use(self, nu: float, inflation: float) -> None:
        """Set what the scores work with: the posterior with another ``nu`` and factor of the spread."""

    # --- fit -------------------------------------------------------------------------------------------------------

    def fit(self, read: Reader, generator: torch.Generator) -> Self:
        """Fit to the embeddings of ``read()``, chunks [n, D] that are the same every time.

        It is called 3 + ``lloyd_passes`` + ``passes`` times. Memory: a chunk, K x D sums, the start's embeddings; time
        is linear in n. There is at most a component per `ROWS_PER_COMPONENT`, and per different embedding at the start.
        """
        rows = self._rows(read)
        n, self._mean = rows.count_and_mean()
        k = min(self.n_components, max(1, n // ROWS_PER_COMPONENT))
        centres = spherical_k_means(
            rows, n, k, start_rows=self.start_embeddings, passes=self.lloyd_passes, generator=generator
        )
        self._posterior, self.bounds_ = self._first(self._of_clusters(rows, centres)), list[float]()
        self.active_counts_ = list[int]()
        for _ in range(self.passes):
            sums, bound = self._expected(rows, centres)
            self._posterior = self._posterior.updated(sums)
            self.bounds_.append(bound / n)
            self.active_counts_.append(int((self._posterior.n > OWNED).sum()))
        self.alpha_, self.counts_ = self._posterior.alpha, self._posterior.n
        self._use(self._posterior.nu, 1.0)
        return self

    def _rows(self, read: Reader, dim: int | None = None) -> RowStream:
        return RowStream(read, self.dtype, self.device, dim)

    def _of_clusters(self, rows: RowStream, centres: torch.Tensor) -> Any:
        sums = self._no_sums(centres)
        for chunk in rows:
            sums.add_labels(nearest(chunk, centres)[1], self._seen(chunk))
        return sums

    def _expected(self, rows: RowStream, like: torch.Tensor) -> tuple[Any, float]:
        """Sums under the posterior, and the bound of all embeddings together."""
        sums, total = self._no_sums(like), 0.0
        for chunk in rows:
            x = self._seen(chunk)
            r, log_norm = _responsibilities(self._posterior.log_joint(x))
            total += float(log_norm.double().sum())
            sums.add(r, x)
        return sums, total - self._posterior.divergence()

    # --- held-out shrinkage ----------------------------------------------------------------------------------------

    def calibrate(self, read: Reader) -> Self:
        """Choose nu and the factor of the spread by the likelihood of embeddings of subjects that were not fitted.

        ``read`` as in `fit`; it is called once for each of ``HELD_OUT_NU``. Raises InputError for no embeddings.
        """
        rows = self._rows(read, len(self._mean))
        _, inflation, nu = min((*self._held_out(rows, nu), nu) for nu in HELD_OUT_NU)
        self._use(nu, inflation)
        return self

    def shrink_as(self, other: Self) -> Self:
        """Take nu and the factor of the spread of another mixture, fitted to a part of the data and calibrated."""
        self._use(other.nu_, other.inflation_)
        return self


def _responsibilities(log_joint: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Responsibilities [n, K], in the place of the log-joint densities, and their log-norm [n, 1]."""
    largest = log_joint.amax(1, keepdim=True)
    r = log_joint.sub_(largest).clamp_min_(LOWEST_LOG_RESPONSIBILITY).exp_()
    norm = r.sum(1, keepdim=True)
    return r.div_(norm), largest + norm.log()
