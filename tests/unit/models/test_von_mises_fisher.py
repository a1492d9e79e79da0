"""Von Mises-Fisher distribution and mixture: against mpmath and hand-computed cases; its bound; what it refuses."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from dinodp.errors import InputError
from dinodp.models import VonMisesFisherMixture
from dinodp.models.full_passes import HELD_OUT_NU
from dinodp.models.von_mises_fisher import KAPPA_RANGE, concentration, log_bessel, log_normaliser, mean_length
from dinodp.models.von_mises_fisher_mixture import Resultants, SpherePosterior

KAPPAS = (1e-2, 0.5, 5.0, 50.0, 500.0, 5e3, 1e5, 1e6)
DIMENSIONS = (2, 3, 64, 101, 102, 103, 192, 384, 768, 1024)  # the method changes at 102


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(n, mu, kappa, seed=0):
    """Unit vectors [n, d] from a von Mises-Fisher distribution (Wood 1994), by scipy."""
    from scipy.stats import vonmises_fisher

    return torch.from_numpy(vonmises_fisher(mu.numpy(), kappa).rvs(n, random_state=seed))


def planted(n=3000, d=16, k=5, seed=0, kappa=50.0):
    """Unit vectors of k orthogonal directions with 1, 2, ... times the concentration; directions, concentrations."""
    mus = torch.linalg.qr(torch.randn(d, k, generator=seeded(seed)).double()).Q.T
    kappas = kappa * torch.arange(1, k + 1)
    x = torch.cat([drawn(n // k, mu, float(kappa), i) for i, (mu, kappa) in enumerate(zip(mus, kappas, strict=True))])
    return x[torch.randperm(len(x), generator=seeded(seed))], mus, kappas


def fitted(x, k, *, seed=0, chunk=500, dtype=torch.float64, **options):
    return VonMisesFisherMixture(k, dtype=dtype, **options).fit(lambda: iter(x.split(chunk)), seeded(seed))


@pytest.mark.parametrize("d", DIMENSIONS)
def test_the_bessel_function_and_its_ratio_are_those_of_mpmath(d):
    for kappa in KAPPAS:
        with mpmath.workdps(40):
            low, high = mpmath.besseli(d / 2 - 1, kappa), mpmath.besseli(d / 2, kappa)
            expected, ratio = float(mpmath.log(low)), float(high / low)
        assert log_bessel(d / 2 - 1, np.array([kappa]))[0] == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert mean_length(d, np.array([kappa]))[0] == pytest.approx(ratio, rel=1e-6)
        assert concentration(d, np.array([ratio]))[0] == pytest.approx(kappa, rel=1e-3)


def test_on_the_sphere_in_three_dimensions_the_normaliser_is_elementary():
    kappa = np.array([0.1, 1.0, 20.0])
    np.testing.assert_allclose(log_normaliser(3, kappa), np.log(kappa / (4 * math.pi * np.sinh(kappa))), rtol=1e-12)
    np.testing.assert_allclose(mean_length(3, kappa), 1 / np.tanh(kappa) - 1 / kappa, rtol=1e-9)


def test_a_length_of_zero_or_one_gives_the_limits():
    assert concentration(192, np.array([0.0, 1.0])).tolist() == list(KAPPA_RANGE)


def test_two_directions_by_hand():
    """30 vectors of one direction, 10 of another, all exact: lengths 1, so the prior decides nothing."""
    x = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]]).repeat(10, 1)
    mixture = fitted(x.double(), 2)
    np.testing.assert_allclose(mixture.means_, [[1, 0, 0], [0, 1, 0]], atol=1e-6)
    assert mixture.kappas_.tolist() == [KAPPA_RANGE[1]] * 2
    np.testing.assert_allclose(mixture.counts_, [30, 10], atol=1e-6)
    found = mixture.scores(torch.tensor([[1.0, 0, 0], [3, 4, 0], [0, 0, 2]]), ["scaled_cosine"])["scaled_cosine"]
    np.testing.assert_allclose(found, KAPPA_RANGE[1] * np.array([0, 0.2, 1]), rtol=1e-6)


def test_the_prior_lengthens_by_as_many_embeddings_as_it_is_strong():
    resultants = Resultants(torch.tensor([30.0, 10.0]).double(), torch.tensor([[15.0, 0, 0], [0, 9.0, 0]]).double())
    posterior = SpherePosterior.first(resultants, nu=20.0)
    assert posterior.length == pytest.approx(24 / 40)
    lengths = np.array([(15 + 20 * 0.6) / 50, (9 + 20 * 0.6) / 30])
    np.testing.assert_allclose(mean_length(3, posterior.kappas.numpy()), lengths, rtol=1e-4)


@pytest.mark.parametrize("k", [1, 2, 5, 20])
@pytest.mark.parametrize("d", [8, 120])
def test_the_bound_never_falls(k, d):
    bounds = torch.tensor(fitted(planted(d=d, kappa=5.0)[0], k, passes=20).bounds_, dtype=torch.float64)
    assert float(bounds.diff().min()) > -1e-9
    assert bounds[-1] > bounds[0] or k == 1


def test_planted_components_are_recovered():
    x, mus, kappas = planted(10_000)
    mixture = fitted(x, 5, passes=20)
    cosine = mixture.means_.double() @ mus.T
    order = cosine.argmax(0)
    assert float(cosine.amax(0).min()) > 0.99
    np.testing.assert_allclose(mixture.kappas_[order], kappas, rtol=0.1)
    np.testing.assert_allclose(mixture.weights_, 0.2, atol=0.02)
    assert torch.equal(mixture.assign(mus), order)


def test_scores_are_what_their_definitions_say_and_length_does_not_matter():
    x, _, _ = planted(500)
    mixture = fitted(x, 4)
    mus, kappas = mixture.means_.double(), mixture.kappas_.double().numpy()
    cosine = (x @ mus.T).numpy()
    densities = log_normaliser(16, kappas) + kappas * cosine + mixture.weights_.double().log().numpy()
    found = mixture.scores(3 * x)
    np.testing.assert_allclose(found["log_likelihood"], -logsumexp(densities, axis=1), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found["scaled_cosine"], (kappas * (1 - cosine)).min(1), rtol=1e-4, atol=1e-3)


def test_chunks_and_float32_do_not_matter_and_the_seed_decides():
    x = planted()[0].float()
    one, other = fitted(x, 5, chunk=7, dtype=torch.float32), fitted(x, 5)
    again = fitted(x, 5, chunk=7, dtype=torch.float32)
    for name, scores in one.scores(x).items():
        assert torch.equal(scores, again.scores(x)[name])
        torch.testing.assert_close(scores, other.scores(x)[name], rtol=0.01, atol=0.01)


@pytest.mark.parametrize("kind", ["equal", "one", "zero", "opposite"])
def test_degenerate_data_give_finite_scores(kind):
    x = planted(300)[0]
    data = {"equal": x[:1].repeat(50, 1), "one": x[:1], "zero": 0 * x[:9], "opposite": torch.cat([x, -x])}[kind]
    mixture = fitted(data, 10).calibrate(lambda: iter([data]))
    assert all(map(math.isfinite, mixture.bounds_))
    assert all(bool(torch.isfinite(scores).all()) for scores in mixture.scores(data).values())


def test_held_out_embeddings_undo_what_few_embeddings_overfit():
    """20 components of 200 embeddings lie closer to these than to others: the factor is above 1."""
    x, _, kappas = planted(4000, d=64)
    many = fitted(x[:2000], 5).calibrate(lambda: iter([x[2000:]]))
    assert many.nu_ in HELD_OUT_NU
    assert many.inflation_ == pytest.approx(1, abs=0.05)
    assert float(many.kappas_.mean()) == pytest.approx(float(kappas.mean()), rel=0.2)
    few = fitted(x[:200], 20).calibrate(lambda: iter(x[2000:].split(300)))
    assert few.inflation_ > 1.05
    again = fitted(x[:200], 20).shrink_as(few)
    assert torch.equal(again.kappas_, few.kappas_)
    own = few.kappas_.numpy()[few.assign(x[2000:])]
    typical = float((own * (1 - mean_length(64, own.astype(float)))).mean())
    assert float(few.scores(x[2000:])["scaled_cosine"].mean()) == pytest.approx(typical, rel=0.1)


def test_the_state_carries_the_scores_and_a_damaged_one_is_refused():
    x = planted(500)[0]
    mixture = fitted(x, 5)
    again = VonMisesFisherMixture(5).load_state(mixture.state_dict())
    for name, scores in mixture.scores(x).items():
        assert torch.equal(scores, again.scores(x)[name])
    with pytest.raises(InputError, match=r"have shapes \(5,\), \(5, 16\), \(4,\); \[K\], \[K, D\], \[K\] are needed"):
        again.load_state({**mixture.state_dict(), "kappas": mixture.kappas_[:4]})


def test_what_cannot_be_fitted_calibrated_or_scored_is_refused():
    x = planted(100)[0]
    with pytest.raises(InputError, match="There is no embedding to fit on"):
        VonMisesFisherMixture(2).fit(lambda: iter([]), seeded())
    mixture = fitted(x, 3)
    with pytest.raises(InputError, match="There is no held-out embedding"):
        mixture.calibrate(lambda: iter([]))
    with pytest.raises(InputError, match=r"shape \(5, 7\); \[n, 16\]"):
        mixture.scores(torch.zeros(5, 7))
    with pytest.raises(InputError, match="Unknown score of a von Mises-Fisher mixture 'cosine'"):
        mixture.scores(x, ["cosine"])
    with pytest.raises(InputError, match="must be at least 1"):
        VonMisesFisherMixture(3, passes=0)
