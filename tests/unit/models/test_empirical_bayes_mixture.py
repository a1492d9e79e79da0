"""The empirical Bayes Dirichlet mixture: its bound, its limits, its scores by their definition, what it refuses."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch.nn import functional

from dinodp.errors import InputError
from dinodp.models import EmpiricalBayesMixture
from dinodp.models.full_passes import HELD_OUT_NU
from dinodp.models.normal_gamma import NormalGamma, Prior, Statistics
from dinodp.models.spherical_k_means import Farthest, plus_plus
from dinodp.options.choices import CALIBRATED_SCORES


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def planted(n=2000, d=8, k=6, seed=0):
    """Unit vectors [n, d], float64, about k directions, each with a width of its own."""
    generator = seeded(seed)
    centres = functional.normalize(torch.randn(k, d, generator=generator), dim=1)
    labels = torch.randint(k, (n,), generator=generator)
    width = 0.15 * torch.rand(k, 1, generator=generator)[labels]
    return functional.normalize((centres[labels] + width * torch.randn(n, d, generator=generator)).double(), dim=1)


def fitted(x, k, *, seed=0, chunk=500, dtype=torch.float64, **options):
    return EmpiricalBayesMixture(k, dtype=dtype, **options).fit(lambda: iter(x.split(chunk)), seeded(seed))


@pytest.mark.parametrize("k", [1, 2, 5, 20])
@pytest.mark.parametrize("seed", range(3))
def test_the_bound_never_falls(k, seed):
    bounds = torch.tensor(fitted(planted(seed=seed), k, passes=25).bounds_)
    assert float(bounds.diff().min()) > -1e-9
    assert bounds[-1] > bounds[0] or k == 1


def test_the_bound_does_not_fall_in_float32_where_embeddings_hardly_vary():
    """A hand-made descriptor has numbers that are nearly constant: variances down to the floor, and below."""
    x = planted(3000, d=32, k=4).float()
    x[:, :16] *= 1e-3
    x[: len(x) // 2, 16:] = x[0, 16:]
    bounds = torch.tensor(fitted(x, 20, dtype=torch.float32).bounds_, dtype=torch.float64)
    assert float(bounds.diff().min()) > -1e-3


def test_one_component_is_the_gaussian():
    x = planted()
    mixture = fitted(x, 1)
    torch.testing.assert_close(mixture.means_[0].double(), x.mean(0), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(mixture.covariances_[0].double(), x.var(0, correction=0), rtol=0.02, atol=0)
    assert mixture.weights_.tolist() == [1.0]


def test_planted_directions_are_all_found_and_the_weights_are_their_shares():
    x = planted(4000, d=16, k=6)
    mixture = fitted(x, 6)
    centres = functional.normalize(torch.randn(6, 16, generator=seeded()), dim=1)
    found = functional.normalize(mixture.means_, dim=1) @ centres.T
    assert float(found.amax(0).min()) > 0.99
    assert float(mixture.weights_.sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(mixture.weights_.double(), mixture.counts_ / 4000, atol=0.01, rtol=0)
    assert (mixture.counts_.diff() <= 0).all()


def test_how_the_embeddings_are_cut_into_chunks_does_not_matter():
    x = planted()
    one, other = fitted(x, 6, chunk=7), fitted(x, 6, chunk=2000)
    torch.testing.assert_close(one.means_, other.means_, atol=1e-6, rtol=1e-6)
    assert one.bounds_ == pytest.approx(other.bounds_, rel=1e-9)


def test_the_same_seed_gives_the_same_mixture_and_float32_nearly_that_of_float64():
    x = planted().float()
    one, again = fitted(x, 6, dtype=torch.float32), fitted(x, 6, dtype=torch.float32)
    for name, scores in one.scores(x).items():
        assert torch.equal(scores, again.scores(x)[name])
        torch.testing.assert_close(scores, fitted(x, 6).scores(x)[name], rtol=0.01, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["equal", "many equal", "three", "one", "thrice", "constant dimensions", "zero"])
def test_degenerate_data_give_finite_scores(kind, dtype):
    x = planted(300)
    data = {
        "equal": x[:1].repeat(200, 1),
        "many equal": torch.cat([x[:1].repeat(200, 1), x]),
        "three": x[:3],
        "one": x[:1],
        "thrice": torch.cat([x, x, x]),
        "constant dimensions": torch.cat([x, torch.zeros(300, 2)], dim=1),
        "zero": torch.zeros(50, 4),
    }[kind].to(dtype)
    mixture = fitted(data, 10, dtype=dtype).calibrate(lambda: iter([data]))
    assert all(map(math.isfinite, mixture.bounds_))
    assert all(bool(torch.isfinite(scores).all()) for scores in mixture.scores(data).values())
    assert kind == "zero" or len(mixture.means_) <= len(torch.unique(data, dim=0))  # zero has no direction


def test_repeated_embeddings_neither_swallow_anomalies_nor_make_the_others_anomalous():
    whole = planted(2500, d=32)
    x, others = whole[:2000], whole[2000:]
    anomalies = functional.normalize(torch.randn(500, 32, generator=seeded(9)), dim=1)
    for mixture in (fitted(x, 6), fitted(torch.cat([x, x[:1].repeat(3000, 1)]), 7)):
        far, near = (mixture.scores(part)["calibrated_distance"] for part in (anomalies, others))
        assert float((far[:, None] > near).double().mean()) > 0.99


def test_scores_are_what_their_definitions_say():
    x = planted(500)
    mixture = fitted(x, 4, volume_exponent=0.25)
    means, variances = mixture.means_.double(), mixture.covariances_.double()
    forms = ((x[:, None] - means).square() / variances).sum(2)
    volume = variances.log().sum(1)
    densities = [multivariate_normal(m, torch.diag(v)).logpdf(x) for m, v in zip(means, variances, strict=True)]
    joint = torch.from_numpy(np.stack(densities, axis=1)) + mixture.weights_.double().log()
    expected = {
        "calibrated_distance": (forms + 0.25 * (volume - volume.min())).amin(1).sqrt(),
        "mahalanobis": forms.amin(1).sqrt(),
        "log_likelihood": -torch.tensor(logsumexp(joint, axis=1)),
        "cosine": 1 - (x @ functional.normalize(means, dim=1).T).amax(1),
    }
    found = mixture.scores(x)
    assert tuple(found) == CALIBRATED_SCORES
    for name, values in found.items():
        torch.testing.assert_close(values.double(), expected[name], rtol=1e-3, atol=1e-4)
    assert torch.equal(mixture.assign(x), functional.normalize(x, dim=1).float().mm(
        functional.normalize(mixture.means_, dim=1).T).argmax(1))  # fmt: skip


def test_an_exponent_of_zero_is_the_mahalanobis_distance():
    x = planted(300)
    found = fitted(x, 4, volume_exponent=0.0).scores(x)
    assert torch.equal(found["calibrated_distance"], found["mahalanobis"])


def test_held_out_embeddings_that_lie_wider_inflate_the_variances():
    x = planted(4000)
    mixture = fitted(x[:2000], 6)
    mixture.calibrate(lambda: iter(x[2000:].split(300)))
    assert mixture.nu_ in HELD_OUT_NU
    alike = mixture.inflation_
    assert alike == pytest.approx(1, abs=0.1)
    wide = x[2000:] + 0.05 * torch.randn(2000, 8, generator=seeded(1))
    assert mixture.calibrate(lambda: iter([wide])).inflation_ > 1.3 * alike
    scores = mixture.scores(wide)["mahalanobis"]
    assert float(scores.square().mean()) == pytest.approx(8, rel=0.1)  # as many as dimensions


def test_the_prior_pulls_variances_towards_the_typical_ones():
    x = planted(300)
    statistics = Statistics.zeros(x[:2])
    statistics.add_labels(torch.arange(300) % 2, x)
    gaussians = NormalGamma(Prior(20.0, 1e-9, torch.linspace(1, 2, 8).double()), statistics)
    torch.testing.assert_close(gaussians.shrunk(1e12), gaussians.prior.tau.expand(2, -1))
    plain = torch.stack([x[::2].var(0, correction=0), x[1::2].var(0, correction=0)])
    torch.testing.assert_close(gaussians.shrunk(0.0), plain)
    torch.testing.assert_close(gaussians.variances, (20 * gaussians.prior.tau + 150 * plain) / 170)


def test_the_state_carries_the_scores():
    x = planted(500).float()
    mixture = fitted(x, 5, dtype=torch.float32).calibrate(lambda: iter([x]))
    again = EmpiricalBayesMixture(5).load_state(mixture.state_dict())
    for name, scores in mixture.scores(x).items():
        assert torch.equal(scores, again.scores(x)[name])
    assert {key: str(value) for key, value in again.state_dict().items()} == {
        key: str(value) for key, value in mixture.state_dict().items()
    }


def test_a_state_whose_shapes_do_not_fit_is_refused():
    state = fitted(planted(100), 3).state_dict()
    with pytest.raises(InputError, match=r"have shapes \(3,\), \(3, 8\), \(2, 8\); \[K\], \[K, D\], \[K, D\]"):
        EmpiricalBayesMixture(3).load_state({**state, "variances": state["variances"][:2]})


@pytest.mark.parametrize(
    ("chunks", "sentence"),
    [
        ([], "There is no embedding to fit on"),
        ([torch.zeros(3)], r"Embeddings have shape \(3,\); \[n, D\]"),
        ([torch.zeros(2, 3), torch.zeros(2, 4)], "Embeddings have 3 dimensions and then 4"),
        ([torch.full((2, 2), math.nan)], "values that are not finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(chunks, sentence):
    with pytest.raises(InputError, match=sentence):
        EmpiricalBayesMixture(2).fit(lambda: iter(chunks), seeded())


def test_what_cannot_be_calibrated_or_scored_is_refused():
    mixture = fitted(planted(100), 3)
    with pytest.raises(InputError, match="There is no held-out embedding"):
        mixture.calibrate(lambda: iter([]))
    with pytest.raises(InputError, match=r"shape \(5, 7\); \[n, 8\]"):
        mixture.calibrate(lambda: iter([torch.zeros(5, 7)]))
    with pytest.raises(InputError, match="Unknown score of calibrated components 'euclidean'"):
        mixture.scores(planted(5), ["euclidean"])
    with pytest.raises(InputError, match="must be at least 1"):
        EmpiricalBayesMixture(0)


@pytest.mark.parametrize(("n", "k"), [(5, 1), (39, 3), (2000, 20)])
def test_at_most_a_component_per_ten_embeddings(n, k):
    mixture = fitted(planted(n), 20, passes=1)
    assert len(mixture.means_) == k
    assert len(mixture.active_counts_) == len(mixture.bounds_) == 1


def test_the_centres_of_the_start_are_all_different():
    x = planted(50)
    centres = plus_plus(torch.cat([x, x]), 100, seeded())
    assert len(centres) == 50 == len(torch.unique(centres, dim=0))


def test_the_farthest_vectors_of_a_stream():
    distances, vectors = torch.rand(100, generator=seeded()), torch.arange(100.0)[:, None]
    far = Farthest.none(vectors)
    for rows in torch.arange(100).split(7):
        far = far.joined(distances[rows], vectors[rows], limit=9)
    assert far.vectors.flatten().tolist() == distances.topk(9).indices.tolist()
