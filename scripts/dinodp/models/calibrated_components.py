"""Components of diagonal variance, and distances to them that are comparable between components."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch

from dinodp.errors import InputError, require_known
from dinodp.models.components import HasComponents, posterior, rows_at_once
from dinodp.models.row_stream import ROWS_PER_CHUNK
from dinodp.models.separable_covariance import DiagonalComponents
from dinodp.options.choices import CALIBRATED_SCORES

NARROW = 1e-5  # variance below which float32 loses more than about 0.01 of a form of unit vectors


class CalibratedComponents(HasComponents):
    """``components_`` (weights, means and variances, float32) with their scores; ``volume_exponent`` is gamma.

    Beside them: ``counts_`` [K] (training embeddings of each), ``nu_`` and ``inflation_`` of the variances, ``alpha_``.
    """

    counts_: torch.Tensor
    nu_: float
    inflation_: float
    alpha_: float

    def __init__(self, volume_exponent: float = 0.5, device: str = "cpu") -> None:
        self.volume_exponent, self.device = volume_exponent, torch.device(device)

    def _set_components(self, log_weights: torch.Tensor, means: torch.Tensor, variances: torch.Tensor) -> None:
        parts = (values.to(self.device, torch.float32) for values in (log_weights, means, variances))
        self.components_ = DiagonalComponents(*parts)
        volumes = variances.double().log().sum(1)
        self.penalties_ = (self.volume_exponent * (volumes - volumes.min())).to(self.device, torch.float32)

    def scores(self, x: torch.Tensor, names: Sequence[str] = CALIBRATED_SCORES) -> dict[str, torch.Tensor]:
        """Scores [n], float32, of embeddings [n, D], higher is more anomalous.

        ``calibrated_distance`` is sqrt(min_k [Q_k + gamma (log|var_k| - min_j log|var_j|)]), Q_k the quadratic form;
        ``mahalanobis`` has gamma = 0. Raises InputError for another name.
        """
        for name in names:
            require_known("score of calibrated components", name, CALIBRATED_SCORES)
        x = self._checked(x)
        parts = [self._chunk_scores(chunk, names) for chunk in self._chunks(x)]
        return {name: torch.cat([part[name] for part in parts]) for name in names}

    def _chunks(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Rows minus the mixture's centre."""
        for chunk in x.split(rows_at_once(self.device, ROWS_PER_CHUNK)):
            yield chunk.to(self.device, torch.float32) - self.components_.centre

    def _chunk_scores(self, centred: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:
        components, found = self.components_, {}
        if "cosine" in names:
            found["cosine"] = 1 - components.cosines(centred).amax(1)
        if "log_likelihood" in names:
            found["log_likelihood"] = -posterior(components.log_densities(centred, components.active))[1]
        penalties = {"calibrated_distance": self.penalties_, "mahalanobis": torch.zeros_like(self.penalties_)}
        if distances := [name for name in names if name in penalties]:
            means = components.means - components.centre
            forms = quadratic_forms(centred, means, components.covariances)
            for name in distances:
                found[name] = _distance(centred, means, components.covariances, forms, penalties[name])
        return found

    def state_dict(self) -> dict[str, Any]:
        """What scoring needs, and the numbers that say how it was found."""
        return {
            "log_weights": self.components_.log_weights.cpu(),
            "means": self.means_.cpu(),
            "variances": self.covariances_.cpu(),
            "counts": self.counts_.cpu(),
            "nu": self.nu_,
            "inflation": self.inflation_,
            "concentration": self.alpha_,
        }

    def load_state(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave, to score with. Raises InputError when shapes do not fit each other."""
        weights, means, variances, self.counts_ = (
            torch.as_tensor(np.array(state[key])) for key in ("log_weights", "means", "variances", "counts")
        )
        if means.ndim != 2 or means.shape != variances.shape or weights.shape != means.shape[:1]:
            shapes = ", ".join(str(tuple(values.shape)) for values in (weights, means, variances))
            raise InputError(f"Log-weights, means and variances have shapes {shapes}; [K], [K, D], [K, D] are needed.")
        self.nu_, self.inflation_, self.alpha_ = (float(state[key]) for key in ("nu", "inflation", "concentration"))
        self._set_components(weights, means, variances)
        return self


def quadratic_forms(x: torch.Tensor, means: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """sum_d (x_d - m_kd)^2 / v_kd [n, K] by two matrix products, in the dtype of x; at least 0.

    The products of narrow components cancel: their differences are taken in float64.
    """
    if x.dtype == torch.float32 and float(variances.min()) < NARROW:
        return quadratic_forms(x.double(), means.double(), variances.double()).float()
    precisions = 1 / variances
    forms = (means.square() * precisions).sum(1) + x.square() @ precisions.T
    return forms.addmm_(x, (means * precisions).T, alpha=-2).clamp_min_(0)


def _distance(
    x: torch.Tensor, means: torch.Tensor, variances: torch.Tensor, forms: torch.Tensor, penalties: torch.Tensor
) -> torch.Tensor:
    """sqrt(min_k [form + penalty]) [n]; the form of the best component is computed from differences, so it is exact."""
    best = (forms + penalties).argmin(1)
    return (((x - means[best]).square() / variances[best]).sum(1) + penalties[best]).sqrt()
