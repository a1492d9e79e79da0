"""Full covariance with skipped pairs against every pair computed, in float64."""

import math

import pytest
import torch

from dinodp.models import DirichletProcessMixture, full_covariance
from dinodp.models.components import NEGLIGIBLE

D, K = 40, 12


@pytest.fixture(params=[4, 32, 64], ids=["four blocks", "two blocks", "one block"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(full_covariance, "FIRST_BLOCK", request.param)
    return request.param


def unit_clusters(n=900, seed=0):
    """Unit vectors [n, D] in clusters of different width, two of which overlap."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(8, D, generator=torch.Generator().manual_seed(7))
    centres[7] = centres[6] + 0.05
    labels = torch.randint(8, (n,), generator=generator)
    width = torch.tensor([0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.2, 0.2])[labels, None]
    x = centres[labels] + width * torch.randn(n, D, generator=generator)
    return torch.nn.functional.normalize(x, dim=1)


def fitted(x, steps):
    mixture = DirichletProcessMixture(K, "full", reg_covar=1e-3)
    mixture.initialize(x, generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        mixture.partial_fit(x)
    return mixture


def plain_forms(mixture, x):
    """Quadratic forms [n, K] and weighted log-densities [n, K], all pairs, float64."""
    covariances, difference = mixture.covariances_.double(), x.double()[:, None] - mixture.means_.double()
    solved = torch.linalg.solve(covariances, difference.permute(1, 2, 0)).permute(2, 0, 1)
    forms = (difference * solved).sum(2)
    constant = mixture.weights_.double().log() - 0.5 * (D * math.log(2 * math.pi) + torch.logdet(covariances))
    return forms, constant - 0.5 * forms


@pytest.mark.parametrize("steps", [0, 1, 12])
def test_what_is_skipped_is_negligible_and_the_rest_exact(blocks, steps):
    mixture, x = fitted(unit_clusters(), steps), unit_clusters(300, seed=1)
    found = mixture.components_.log_densities(x - mixture.components_.centre, torch.arange(K))
    forms, exact = plain_forms(mixture, x)
    skipped = torch.isinf(found)
    assert (exact.softmax(1)[skipped] < NEGLIGIBLE).all()
    if blocks == 4 and steps:
        assert skipped.float().mean() > 0.5
    kept = ~skipped
    assert ((found.double() - exact)[kept].abs() / exact[kept].abs().clamp_min(1)).max() < 1e-3
    torch.testing.assert_close(mixture.responsibilities(x).double(), exact.softmax(1), atol=1e-3, rtol=0)
    active = exact[:, mixture.active_]
    torch.testing.assert_close(mixture.score_samples(x).double(), active.logsumexp(1), rtol=1e-4, atol=1e-3)
    nearest = forms[:, mixture.active_].amin(1).sqrt()
    torch.testing.assert_close(mixture.distances(x, "mahalanobis").double(), nearest, rtol=1e-3, atol=1e-3)


def test_a_step_gives_the_statistics_of_all_pairs(blocks):
    mixture, x = fitted(unit_clusters(), 5), unit_clusters(600, seed=2)
    r = plain_forms(mixture, x)[1].softmax(1)
    n, s0, s1, s2, _ = mixture._batch_statistics(x)
    assert n == len(x)
    wide = x.double()
    torch.testing.assert_close(s0, r.sum(0) / n, atol=1e-5, rtol=0)
    torch.testing.assert_close(s1, r.T @ wide / n, atol=1e-5, rtol=0)
    torch.testing.assert_close(s2, torch.einsum("nk,ni,nj->kij", r, wide, wide) / n, atol=1e-5, rtol=0)


def test_blocks_do_not_change_a_fit(monkeypatch):
    x = unit_clusters()
    plain = fitted(x, 8)
    monkeypatch.setattr(full_covariance, "FIRST_BLOCK", 4)
    blockwise = fitted(x, 8)
    torch.testing.assert_close(blockwise.means_, plain.means_, atol=1e-4, rtol=0)
    torch.testing.assert_close(blockwise.covariances_, plain.covariances_, atol=1e-4, rtol=0)


def test_components_without_weight_are_left_out():
    mixture, x = fitted(unit_clusters(), 3), unit_clusters(50, seed=3)
    state = mixture.state_dict()
    sticks = state["stick_fractions"].clone()
    sticks[2], sticks[5] = 0.0, 1.0  # component 2 and all after 5 have weight zero
    mixture.load_state({**state, "stick_fractions": sticks})
    r = mixture.responsibilities(x)
    assert (r[:, 2] == 0).all()
    assert (r[:, 6:] == 0).all()
    torch.testing.assert_close(r.sum(1), torch.ones(50))
