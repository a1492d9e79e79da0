import pytest
import torch

from dinodp.errors import InputError
from dinodp.models import MemoryBank, coreset
from dinodp.models.k_center import TRIAL_CENTRES, TRIAL_ROWS, estimated_seconds, farthest_first


def draw(n, d=16, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def unit(n, d=16, seed=0):
    return torch.nn.functional.normalize(draw(n, d, seed), dim=1)


def one_by_one(x, n, first):
    """Greedy k-center as it is defined."""
    taken = [first]
    while len(taken) < n:
        taken.append(int(torch.cdist(x.double(), x[taken].double()).amin(1).argmax()))
    return taken


@pytest.fixture(params=[5, 64, 4096])
def pool(request, monkeypatch):
    """Rounds of few, of some and of all embeddings."""
    monkeypatch.setattr("dinodp.models.k_center.POOL", request.param)
    monkeypatch.setattr("dinodp.models.k_center.ROWS_PER_UPDATE", 77)


@pytest.mark.usefixtures("pool")
def test_rounds_take_what_one_by_one_is_taken():
    x = unit(400)
    assert farthest_first(x, 90, 7).tolist() == one_by_one(x, 90, 7)


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_with_slack_each_one_is_nearly_the_farthest(kind):
    x, slack = unit(400).to(kind), 0.2
    taken = farthest_first(x, 90, 7, slack).tolist()
    assert len(set(taken)) == 90
    for count in range(1, 90):
        distance = torch.cdist(x.double(), x[taken[:count]].double()).amin(1)
        assert distance[taken[count]] >= (1 - slack) * distance.max() - 2e-3


@pytest.mark.usefixtures("pool")
def test_copies_are_taken_once_each():
    assert sorted(farthest_first(unit(1).expand(30, -1), 30, 3).tolist()) == list(range(30))


def test_the_first_is_drawn_by_the_generator():
    first = {int(coreset(draw(50), 1, torch.Generator().manual_seed(seed))[0]) for seed in range(8)}
    assert len(first) > 3


def test_coreset_covers_better_than_chance():
    x = torch.cat([draw(500) * 0.05 + 1, draw(20, seed=1)])
    generator = torch.Generator().manual_seed(0)
    chosen = coreset(x, 15, generator)
    assert len(set(chosen.tolist())) == 15
    random = torch.randperm(len(x), generator=generator)[:15]
    farthest = [MemoryBank().fit(x[rows]).distances(x).max() for rows in (torch.from_numpy(chosen), random)]
    assert farthest[0] < farthest[1]


def test_coreset_takes_the_farthest_next():
    x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    chosen = coreset(x, 4, torch.Generator().manual_seed(1)).tolist()
    first = x[chosen[0]]
    assert chosen[1] == int((torch.nn.functional.normalize(x, dim=1) @ first).argmin())


def test_the_estimate_grows_with_both_numbers(monkeypatch):
    clock = iter([10.0, 12.0])
    monkeypatch.setattr("dinodp.models.k_center.perf_counter", lambda: next(clock))
    assert estimated_seconds(3 * TRIAL_ROWS, 5 * TRIAL_CENTRES, 4) == 30


@pytest.mark.parametrize("n", [0, 4])
def test_a_wrong_number_is_a_sentence(n):
    with pytest.raises(InputError, match=f"coreset of {n} embeddings was asked for; it must be between 1 and 3"):
        coreset(draw(3), n, torch.Generator())
