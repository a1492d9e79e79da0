"""What holds for any embeddings: properties of the mixtures and of the memory bank, on random examples."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dinodp.models import DirichletProcessMixture, GaussianMixture, MemoryBank, coreset

KINDS = st.sampled_from(["diag", "spherical", "full"])
MIXTURES = st.sampled_from([DirichletProcessMixture, GaussianMixture])


@st.composite
def embeddings(draw, least=12):
    """[n, D] of some clusters at any scale and place, some of them repeated."""
    n, dim = draw(st.integers(least, 60)), draw(st.integers(1, 6))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = generator.normal(size=(n, dim)) * draw(st.sampled_from([0.1, 1.0, 30.0]))
    x += generator.integers(-3, 4, size=(n, 1)) * draw(st.sampled_from([0.0, 1.0, 20.0]))
    repeated = draw(st.integers(0, n - 1))
    x[:repeated] = x[0]
    return torch.from_numpy(x.astype(np.float32))


def fitted(mixture_type, x, k, kind, steps=4, seed=0):
    mixture = mixture_type(k, kind, reg_covar=1e-2)
    mixture.initialize(x, generator=torch.Generator().manual_seed(seed))
    for _ in range(steps):
        mixture.partial_fit(x)
    return mixture


@given(embeddings(), MIXTURES, KINDS, st.integers(2, 12))
def test_responsibilities_are_probabilities_and_weights_are_sticks(x, mixture_type, kind, k):
    mixture = fitted(mixture_type, x, k, kind)
    found = mixture.responsibilities(x)
    assert found.shape == (len(x), k)
    assert bool((found >= 0).all())
    torch.testing.assert_close(found.sum(1), torch.ones(len(x)))
    assert 0 < float(mixture.weights_.sum()) <= 1 + 1e-5
    assert bool(mixture.active_.any())
    assert all(bool(torch.isfinite(values).all()) for values in mixture.scores(x).values())


@given(embeddings(), MIXTURES, KINDS, st.integers(0, 1000))
def test_the_order_of_embeddings_does_not_matter(x, mixture_type, kind, seed):
    mixture = fitted(mixture_type, x, 4, kind, steps=1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(mixture.score_samples(x)[order], mixture.score_samples(x[order]), rtol=1e-4, atol=1e-3)
    again = mixture_type(4, kind, reg_covar=1e-2)
    again.load_state(mixture.state_dict())
    mixture.partial_fit(x), again.partial_fit(x[order])
    torch.testing.assert_close(mixture.means_, again.means_, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(mixture.covariances_, again.covariances_, rtol=1e-2, atol=1e-3)


@given(embeddings(), MIXTURES, KINDS, st.integers(2, 4))
def test_embeddings_that_all_occur_several_times_leave_a_mixtures_step_as_it_is(x, mixture_type, kind, times):
    one = fitted(mixture_type, x, 4, kind, steps=1)
    several = mixture_type(4, kind, reg_covar=1e-2)
    several.load_state(one.state_dict())
    one.partial_fit(x), several.partial_fit(x.repeat(times, 1))
    torch.testing.assert_close(one.means_, several.means_, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(one.covariances_, several.covariances_, rtol=1e-2, atol=1e-3)
    assert several.batch_log_likelihood_ == pytest.approx(one.batch_log_likelihood_, rel=1e-3, abs=1e-3)


@given(embeddings(), MIXTURES, KINDS, st.sampled_from([-2.0, 0.5, 4.0]))
def test_moving_all_embeddings_moves_the_means_only(x, mixture_type, kind, by):
    here, there = fitted(mixture_type, x, 4, kind), fitted(mixture_type, x + by, 4, kind)
    size = float(x.abs().max()) + abs(by) + 1
    torch.testing.assert_close(here.means_[here.active_] + by, there.means_[here.active_], rtol=0, atol=2e-3 * size)
    for name in ("log_likelihood", "euclidean"):
        found, moved = (m.scores(y, [name])[name] for m, y in ((here, x), (there, x + by)))
        torch.testing.assert_close(found, moved, rtol=2e-2, atol=2e-2 * (1 + x.shape[1]))


@given(embeddings(least=2), st.integers(0, 1000))
def test_a_bank_knows_what_it_remembers(x, seed):
    x = x + torch.where(x.norm(dim=1, keepdim=True) == 0, 1.0, 0.0)
    bank = MemoryBank().fit(x)
    distance, index = bank.nearest(x)
    assert float(distance.abs().max()) < 1e-5
    torch.testing.assert_close(
        torch.nn.functional.cosine_similarity(x, x[index]), torch.ones(len(x)), rtol=0, atol=1e-5
    )
    queries = torch.randn(5, x.shape[1], generator=torch.Generator().manual_seed(seed))
    found = bank.distances(queries)
    assert bool(((found > -1e-5) & (found < 2 + 1e-5)).all())
    torch.testing.assert_close(found, MemoryBank().fit(torch.cat([x, x])).distances(queries))
    torch.testing.assert_close(found, bank.distances(queries * 7), rtol=0, atol=1e-5)


@given(embeddings(least=2), st.integers(1, 60), st.integers(0, 1000))
def test_a_coreset_has_the_asked_number_and_covers_better_the_larger_it_is(x, n, seed):
    x = x + torch.where(x.norm(dim=1, keepdim=True) == 0, 1.0, 0.0)
    n = min(n, len(x))
    chosen = coreset(x, n, torch.Generator().manual_seed(seed))
    assert len(chosen) == n
    radii = [float(MemoryBank().fit(x[chosen[:size]]).distances(x).max()) for size in range(1, n + 1)]
    assert all(later <= earlier + 1e-6 for earlier, later in pairwise(radii))
