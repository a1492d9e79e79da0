"""The truncated stick-breaking prior of a Dirichlet process: v_k ~ Beta(1, alpha), v_K = 1.

Sources: Blei & Jordan, Bayesian Analysis 1, 2006; the update of alpha is the paper's (docs/method.md).
"""

from dataclasses import dataclass

import torch

FIRST_ALPHA = 2.0
ALPHA_RANGE = (1e-2, 1e6)
ROUNDS = 5  # of alpha and the sticks in turn, per pass


@dataclass(frozen=True)
class Sticks:
    """Posteriors Beta(``taken``, ``left``) [K - 1] of the sticks, float64, and the concentration ``alpha``."""

    taken: torch.Tensor
    left: torch.Tensor
    alpha: float

    @classmethod
    def of(cls, n: torch.Tensor, alpha: float) -> "Sticks":
        """From sums of responsibilities [K]; alpha = (K - 1) / -sum E log(1 - v), updated with the sticks in turn."""
        after = n.flip(0).cumsum(0).flip(0) - n
        sticks = cls((1 + n)[:-1], (alpha + after)[:-1], alpha)
        for _ in range(ROUNDS if len(n) > 1 else 0):
            alpha = (len(n) - 1) / -float(sticks.log_left.sum())
            alpha = min(max(alpha, ALPHA_RANGE[0]), ALPHA_RANGE[1])
            sticks = cls(sticks.taken, (alpha + after)[:-1], alpha)
        return sticks

    @property
    def log_taken(self) -> torch.Tensor:
        """E log v [K - 1]."""
        return torch.digamma(self.taken) - torch.digamma(self.taken + self.left)

    @property
    def log_left(self) -> torch.Tensor:
        """E log(1 - v) [K - 1]."""
        return torch.digamma(self.left) - torch.digamma(self.taken + self.left)

    @property
    def log_weights(self) -> torch.Tensor:
        """E log pi [K]: what the responsibilities need; as weights they sum to less than one."""
        return _chained(self.log_taken, self.log_left)

    @property
    def log_mean_weights(self) -> torch.Tensor:
        """log E pi [K]: the weights of the predictive density, which sum to one."""
        total = (self.taken + self.left).log()
        return _chained(self.taken.log() - total, self.left.log() - total)

    def divergence(self) -> float:
        """Kullback-Leibler divergence of the posterior from the prior."""
        norm = torch.lgamma(self.taken + self.left) - torch.lgamma(self.taken) - torch.lgamma(self.left)
        alpha = norm.new_tensor(self.alpha)
        parts = norm - alpha.log() + (self.taken - 1) * self.log_taken + (self.left - alpha) * self.log_left
        return float(parts.sum())


def _chained(log_taken: torch.Tensor, log_left: torch.Tensor) -> torch.Tensor:
    zero = log_taken.new_zeros(1)
    return torch.cat([log_taken, zero]) + torch.cat([zero, log_left.cumsum(0)])
