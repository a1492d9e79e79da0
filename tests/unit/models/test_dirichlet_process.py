import ast

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from dinodp.errors import InputError
from dinodp.models import DirichletProcessMixture, components, separable_covariance

KINDS = ("diag", "spherical", "full")


def planted(n=600, seed=0):
    """Three well separated clusters in four dimensions; returns embeddings [n, 4] and labels [n]."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.tensor([[4.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 4.0, 4.0]])
    labels = torch.randint(3, (n,), generator=generator)
    return centres[labels] + 0.3 * torch.randn(n, 4, generator=generator), labels


def fitted(kind="diag", x=None, steps=30, k=8, seed=0, **options):
    x = planted()[0] if x is None else x
    mixture = DirichletProcessMixture(k, kind, **options)
    mixture.initialize(x, generator=torch.Generator().manual_seed(seed), init="spread")
    for _ in range(steps):
        mixture.partial_fit(x)
    return mixture


def dense(mixture):
    """Full covariance matrices [K, D, D], float64."""
    k, d = mixture.means_.shape
    covariances = mixture.covariances_.double()
    if mixture.covariance_type == "full":
        return covariances.numpy()
    columns = covariances if covariances.ndim == 2 else covariances[:, None].expand(k, d)
    return torch.diag_embed(columns).numpy()


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_follows_the_published_implementation_step_by_step(root, kind):
    data = np.load(root / f"tests/data/dpmm/{kind}_ema.npz")
    meta = ast.literal_eval(str(data["meta"]))

    def covariances(array):
        return array if kind == "full" else np.diagonal(array, axis1=-2, axis2=-1)

    mixture = DirichletProcessMixture(meta["K"], kind, reg_covar=meta["reg"], step_rate=meta["rate"])
    state = {"stick_fractions": data["init_v"], "means": data["init_means"], "concentration": data["init_alpha"]}
    mixture.load_state({**state, "covariances": covariances(data["init_covariances"])})
    for step, batch in enumerate(data["batches"]):
        mixture.partial_fit(torch.from_numpy(batch))
        np.testing.assert_allclose(mixture.stick_fractions_, data["step_v"][step], atol=2e-5)
        np.testing.assert_allclose(mixture.means_, data["step_means"][step], atol=5e-5)
        np.testing.assert_allclose(mixture.covariances_, covariances(data["step_covariances"][step]), atol=5e-5)
        assert mixture.concentration_ == pytest.approx(data["step_alpha"][step], rel=1e-4)
        after = mixture.score_samples(torch.from_numpy(batch)).mean()
        assert float(after) == pytest.approx(data["step_mean_log_likelihood"][step], abs=2e-4)
    held_out = torch.from_numpy(data["held_out"])
    np.testing.assert_allclose(mixture.score_samples(held_out), data["score_log_likelihood"], atol=1e-3)
    np.testing.assert_allclose(mixture.responsibilities(held_out), data["responsibilities"], atol=1e-3)
    for score in ("euclidean", "mahalanobis", "cosine"):
        np.testing.assert_allclose(mixture.distances(held_out, score), data[f"score_{score}"], rtol=1e-3, atol=2e-5)
    # the published code normalises its final weights; the stick-breaking weights of a truncation sum to less than one
    np.testing.assert_allclose(mixture.weights_ / mixture.weights_.sum(), data["final_pi"], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_log_likelihood_agrees_with_scipy(kind):
    mixture, x = fitted(kind), planted(50, seed=1)[0]
    terms = [
        np.log(float(mixture.weights_[k])) + multivariate_normal(mixture.means_[k], dense(mixture)[k]).logpdf(x)
        for k in torch.nonzero(mixture.active_).flatten()
    ]
    np.testing.assert_allclose(mixture.score_samples(x), logsumexp(terms, axis=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_recovers_a_planted_mixture(kind):
    x, labels = planted()
    mixture = fitted(kind, x, steps=60)
    heavy = torch.nonzero(mixture.weights_ > 0.05).flatten()
    for label in range(3):
        true = x[labels == label].mean(0)
        assert torch.cdist(true[None], mixture.means_[heavy]).min() < 0.25
    assert float(mixture.weights_.sum()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_responsibilities_are_probabilities(kind):
    r = fitted(kind).responsibilities(planted(40, seed=2)[0])
    torch.testing.assert_close(r.sum(1), torch.ones(40))
    assert (r >= 0).all()


def test_posterior_drops_only_what_is_negligible():
    log_densities = 60 * torch.randn(50, 40, generator=torch.Generator().manual_seed(6)) - 500
    log_densities[0, :] = -torch.inf
    log_densities[0, 3] = -700.0
    exact = log_densities.double()
    r, log_likelihood = components.posterior(log_densities.clone())
    assert (r.double() - exact.softmax(1)).abs().max() < 2e-5  # float32's rounding of a log-density of -500
    np.testing.assert_allclose(log_likelihood, exact.logsumexp(1), rtol=1e-6)
    assert ((r == 0) == (exact - exact.amax(1, keepdim=True) < np.log(components.NEGLIGIBLE))).all()
    torch.testing.assert_close(r.sum(1), torch.ones(50))


def all_components(mixture_components, centred):
    """What ``relevant_log_densities`` gives when nothing is left out."""
    every = torch.arange(len(mixture_components.weights))
    return every, mixture_components.log_densities(centred, every)


@pytest.mark.parametrize("kind", ["diag", "spherical"])
def test_components_are_left_out_only_where_they_are_negligible(kind):
    generator = torch.Generator().manual_seed(7)
    x = torch.nn.functional.normalize(torch.randn(200, 6, generator=generator), dim=1)
    total = 0
    for _ in range(40):
        mixture = fitted(kind, x, steps=2, k=40)
        state = mixture.state_dict()
        state["covariances"] = 10 ** (-3 * torch.rand(mixture.covariances_.shape, generator=generator))
        state["covariances"][::2] = 0.3  # these reach every embedding
        state["means"] = state["means"] * 3 * torch.rand(40, 1, generator=generator)
        state["stick_fractions"][:-1] = 0.5 + 0.3 * torch.rand(39, generator=generator)  # two thirds are not active
        mixture.load_state(state)
        used, found = mixture.components_.relevant_log_densities(x - mixture.components_.centre)
        terms = torch.stack(
            [
                mixture.components_.log_weights[k].double()
                + torch.from_numpy(multivariate_normal(mixture.means_[k], dense(mixture)[k]).logpdf(x))
                for k in range(40)
            ],
            dim=1,
        )
        exact = terms.softmax(1)
        torch.testing.assert_close(found.double(), terms[:, used], rtol=1e-4, atol=1e-3)
        left_out = torch.ones(40, dtype=torch.bool).index_fill_(0, used, False)
        assert len(used.unique()) == len(used)
        assert (exact[:, left_out] < components.NEGLIGIBLE).all()
        total += int(left_out.sum())
    assert total > 100


@pytest.mark.parametrize("kind", ["diag", "spherical"])
def test_a_fit_that_leaves_dead_components_out_is_the_same_fit(kind, monkeypatch):
    x = torch.nn.functional.normalize(planted()[0] + 2, dim=1)
    fast = fitted(kind, x, steps=250, k=60)
    used = fast.components_.relevant_log_densities(x - fast.components_.centre)[0]
    assert len(used) < 30
    monkeypatch.setattr(separable_covariance.SeparableComponents, "relevant_log_densities", all_components)
    plain = fitted(kind, x, steps=250, k=60)
    assert torch.equal(fast.active_, plain.active_)
    for name in ("means_", "covariances_", "weights_"):
        torch.testing.assert_close(getattr(fast, name), getattr(plain, name), atol=1e-4, rtol=1e-3)
    assert fast.batch_log_likelihood_ == pytest.approx(plain.batch_log_likelihood_, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_translation_moves_the_means_only(kind):
    x, shift = planted()[0], torch.tensor([1.0, -2.0, 0.5, 3.0])
    here, there = fitted(kind, x, steps=5), fitted(kind, x + shift, steps=5)
    torch.testing.assert_close(there.means_ - shift, here.means_, atol=2e-3, rtol=0)
    torch.testing.assert_close(there.covariances_, here.covariances_, atol=2e-3, rtol=0)


def test_covariance_types_agree_where_they_must():
    x = torch.randn(300, 1, generator=torch.Generator().manual_seed(3))
    diag, spherical, full = (fitted(kind, x, steps=8, k=4, reg_covar=1e-4) for kind in KINDS)
    torch.testing.assert_close(diag.means_, spherical.means_, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(diag.covariances_[:, 0], full.covariances_[:, 0, 0], atol=1e-3, rtol=1e-2)


def test_batch_steps_raise_the_likelihood():
    mixture = fitted(steps=1, step_schedule="exp", step_rate=1e-9, fix_concentration=True)
    likelihoods = []
    for _ in range(15):
        mixture.partial_fit(planted()[0])
        likelihoods.append(mixture.batch_log_likelihood_)
    assert likelihoods[-1] > likelihoods[0]
    assert min(np.diff(likelihoods)) > -0.02


def test_same_seed_same_numbers_and_chunks_do_not_matter(monkeypatch):
    first, second = fitted(), fitted()
    assert torch.equal(first.means_, second.means_)
    monkeypatch.setattr(separable_covariance.SeparableComponents, "rows_per_chunk", 37)
    torch.testing.assert_close(fitted().means_, first.means_, atol=1e-4, rtol=1e-4)


def test_state_continues_to_the_same_numbers():
    x = planted()[0]
    whole = fitted(steps=6)
    half = fitted(steps=3)
    continued = DirichletProcessMixture(8).load_state(half.state_dict())
    for _ in range(3):
        continued.partial_fit(x)
    assert torch.equal(continued.means_, whole.means_)
    assert continued.step_count_ == 6


def test_one_step_by_hand():
    mixture = DirichletProcessMixture(2, "diag", reg_covar=0.1, fix_concentration=True)
    state = {
        "stick_fractions": [0.5, 1.0],
        "means": [[0.0], [10.0]],
        "covariances": [[1.0], [1.0]],
        "concentration": 2.0,
    }
    mixture.load_state(state)
    mixture.partial_fit(torch.tensor([[-1.0], [1.0], [10.0], [10.0]]))
    torch.testing.assert_close(mixture.means_, torch.tensor([[0.0], [10.0]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(mixture.covariances_, torch.tensor([[1.1], [0.1]]), atol=5e-4, rtol=0)
    # S0 = 0.2 * [0.5, 0.5]; v_0 = 0.1 / (0.1 + (2 - 1)/4 + 0.1), v_1 = 0.1 / (0.1 + 1/4)
    torch.testing.assert_close(mixture.stick_fractions_, torch.tensor([0.1 / 0.45, 0.1 / 0.35]), atol=1e-5, rtol=0)
    v = mixture.stick_fractions_
    torch.testing.assert_close(mixture.weights_, torch.stack([v[0], v[1] * (1 - v[0])]))


def test_fixed_concentration_stays_and_a_learnt_one_moves():
    assert fitted(fix_concentration=True).concentration_ == 2.0
    assert fitted().concentration_ != 2.0


def test_exp_schedule_starts_with_a_whole_step():
    x = planted()[0]
    mixture = fitted(steps=1, step_schedule="exp", step_rate=0.7)
    assert float(mixture._s0.sum()) == pytest.approx(1, abs=1e-5)
    mixture.partial_fit(x)
    assert mixture.step_count_ == 2


def test_float32_stays_close_to_float64_on_unit_norm_data():
    generator = torch.Generator().manual_seed(5)
    centres = torch.randn(6, 64, generator=generator)
    x = centres[torch.randint(6, (900,), generator=generator)] + 0.01 * torch.randn(900, 64, generator=generator)
    x[:100] = x[0]  # identical embeddings: a component collapses to the regularisation
    x = torch.nn.functional.normalize(x, dim=1)
    mixture = fitted("diag", x, k=12, steps=20)
    active = torch.nonzero(mixture.active_).flatten()
    mean, variance, weight = (t[active].double() for t in (mixture.means_, mixture.covariances_, mixture.weights_))
    difference = x.double()[:, None] - mean
    log_density = -0.5 * (difference.square() / variance + variance.log() + np.log(2 * np.pi)).sum(-1)
    exact = torch.logsumexp(weight.log() + log_density, dim=1)
    assert ((mixture.score_samples(x).double() - exact).abs() / exact.abs()).max() < 1e-3
    mahalanobis = (difference.square() / variance).sum(-1).amin(1).sqrt()
    away = mahalanobis > 1
    relative = (mixture.distances(x, "mahalanobis").double() - mahalanobis).abs() / mahalanobis
    assert relative[away].max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_all_scores_at_once_are_each_by_itself(kind):
    mixture, x = fitted(kind), planted(70, seed=5)[0]
    together = mixture.scores(x)
    assert list(together) == ["cosine", "euclidean", "mahalanobis", "log_likelihood"]
    for name in together:
        assert torch.equal(mixture.scores(x, [name])[name], together[name])
    assert torch.equal(-mixture.score_samples(x), together["log_likelihood"])
    means = mixture.means_[mixture.active_].double()
    euclidean = torch.cdist(x.double(), means).amin(1)
    torch.testing.assert_close(together["euclidean"].double(), euclidean, rtol=1e-5, atol=1e-6)
    precisions = torch.from_numpy(dense(mixture)).inverse()[mixture.active_]
    difference = x.double()[:, None] - means
    squared = torch.einsum("nki,kij,nkj->nk", difference, precisions, difference).amin(1)
    torch.testing.assert_close(together["mahalanobis"].double(), squared.sqrt(), rtol=1e-3, atol=1e-3)


def test_paper_initialisation_permutes_the_first_embeddings():
    x = planted()[0]
    mixture = DirichletProcessMixture(10)
    mixture.initialize(x, generator=torch.Generator().manual_seed(0), init="paper")
    assert {tuple(row) for row in mixture.means_.tolist()} == {tuple(row) for row in x[:10].tolist()}
    assert float(mixture.stick_fractions_[-1]) == 1
    torch.testing.assert_close(mixture.covariances_[3], x.var(0) + 1e-6)


def test_assign_names_the_nearest_active_component():
    mixture, x = fitted(), planted(30, seed=4)[0]
    cosine = torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(mixture.means_, dim=1).T
    cosine[:, ~mixture.active_] = -2
    assert torch.equal(mixture.assign(x), cosine.argmax(1))
    torch.testing.assert_close(mixture.distances(x), 1 - cosine.amax(1), atol=1e-6, rtol=1e-4)


def test_embeddings_with_nan_are_refused():
    x = planted()[0]
    x[3, 1] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        fitted().partial_fit(x)


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (lambda: DirichletProcessMixture(5, "tied"), "Unknown covariance type 'tied': choose one of"),
        (lambda: DirichletProcessMixture(5, step_schedule="fast"), "Unknown step schedule"),
        (lambda: DirichletProcessMixture(1), "needs at least 2"),
        (lambda: DirichletProcessMixture(5).score_samples(torch.zeros(2, 3)), "no parameters yet"),
        (lambda: fitted().score_samples(torch.zeros(2, 3)), r"shape \(2, 3\); \[n, 4\]"),
        (lambda: fitted().distances(torch.zeros(2, 4), "manhattan"), "Unknown distance"),
        (lambda: fitted(x=planted(5)[0]), "5 embeddings cannot start 8 components"),
        (lambda: DirichletProcessMixture(5).load_state({"means": [[0.0]]}), "lacks stick_fractions, covariances"),
        (lambda: DirichletProcessMixture(3).load_state(fitted().state_dict()), "a diag mixture of 3 components needs"),
    ],
)
def test_each_mistake_ends_in_a_sentence(action, sentence):
    with pytest.raises(InputError, match=sentence):
        action()
