"""Posteriors against torch's distributions: the bound is made of these divergences and expectations."""

import math

import pytest
import torch
from torch.distributions import Beta, Gamma, Normal, kl_divergence

from dinodp.models.empirical_bayes_mixture import GaussianPosterior
from dinodp.models.normal_gamma import NormalGamma, Prior, Statistics
from dinodp.models.stick_breaking import Sticks

KAPPA, NU = 0.3, 7.0


@pytest.fixture(scope="module")
def posterior():
    """Of three components of other sizes, of which one is all but empty, in two dimensions."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 3.0]) + 0.5
    responsibilities = torch.softmax(torch.tensor([2.0, 0.0, -9.0]) + x[:, :1] * torch.tensor([1.0, -1.0, 0.0]), dim=1)
    statistics = Statistics.zeros(torch.zeros(3, 2))
    statistics.add(responsibilities, x)
    return NormalGamma(Prior(NU, KAPPA, torch.tensor([0.5, 2.0], dtype=torch.float64)), statistics)


def precisions(posterior):
    """Distribution of the precisions [K, D], after the data and before."""
    shape, tau = (NU + posterior.statistics.n)[:, None] / 2, posterior.prior.tau
    rate = (NU * tau + posterior.scatter) / 2
    return Gamma(shape.expand_as(rate), rate), Gamma(torch.full_like(rate, NU / 2), (NU * tau / 2).expand_as(rate))


def test_the_divergence_is_that_of_gamma_and_normal_distributions(posterior):
    after, before = precisions(posterior)
    kappas, typical = posterior.kappas[:, None], after.mean  # the normal part is linear in the precision
    means = Normal(posterior.means, (kappas * typical).rsqrt()), Normal(torch.zeros(3, 2), (KAPPA * typical).rsqrt())
    expected = kl_divergence(after, before).sum() + kl_divergence(*means).sum()
    assert posterior.divergence() == pytest.approx(float(expected), rel=1e-9)


def test_the_expected_log_density_is_that_of_the_posterior(posterior):
    """At the means, where the quadratic form is zero."""
    after, _ = precisions(posterior)
    log_precision = torch.digamma(after.concentration) - after.rate.log()
    expected = 0.5 * (log_precision - math.log(2 * math.pi) - 1 / posterior.kappas[:, None]).sum(1)
    torch.testing.assert_close(posterior.log_offsets(), expected, rtol=1e-9, atol=0)


def test_sticks_diverge_as_beta_distributions():
    sticks = Sticks.of(torch.tensor([30.0, 9.0, 0.5, 0.0], dtype=torch.float64), 2.0)
    prior = Beta(torch.ones_like(sticks.taken), torch.full_like(sticks.left, sticks.alpha))
    assert sticks.divergence() == pytest.approx(float(kl_divergence(Beta(sticks.taken, sticks.left), prior).sum()))
    assert float(sticks.log_mean_weights.exp().sum()) == pytest.approx(1)
    assert float(sticks.log_weights.exp().sum()) < 1


def test_alpha_settles_where_sticks_and_alpha_agree():
    """alpha = (K - 1) / -sum E log(1 - v) at a fixed point."""
    n, sticks = torch.tensor([30.0, 9.0, 5.0, 1.0], dtype=torch.float64), None
    for _ in range(200):
        sticks = Sticks.of(n, sticks.alpha if sticks else 2.0)
    assert sticks.alpha == pytest.approx(3 / -float(sticks.log_left.sum()), rel=1e-6)
    assert sticks.taken.tolist() == [31.0, 10.0, 6.0]
    assert (sticks.left - sticks.alpha).tolist() == pytest.approx([15.0, 6.0, 1.0])


def test_the_divergence_of_a_mixture_is_that_of_its_parts(posterior):
    whole = GaussianPosterior(posterior, Sticks.of(posterior.statistics.n, 2.0))
    assert whole.divergence() == pytest.approx(posterior.divergence() + whole.sticks.divergence())
    assert whole.sticks.divergence() > 0
