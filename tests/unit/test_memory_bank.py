import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from dinodp.errors import InputError
from dinodp.models import MemoryBank, coreset, few_shot, memory_bank


def draw(n, d=16, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_agrees_with_scikit_learn_whatever_the_chunks(monkeypatch):
    bank, queries = draw(300), draw(50, seed=1)
    distance, index = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(bank).kneighbors(queries)
    monkeypatch.setattr(memory_bank, "QUERIES_PER_CHUNK", 7)
    monkeypatch.setattr(memory_bank, "BANK_PER_CHUNK", 31)
    ours, position = MemoryBank().fit(bank).nearest(queries)
    np.testing.assert_allclose(ours, distance[:, 0], atol=1e-6)
    assert position.tolist() == index[:, 0].tolist()


def test_chunks_make_the_same_bank():
    x = draw(40)
    torch.testing.assert_close(MemoryBank().fit(x.split(9)).embeddings_, MemoryBank().fit(x).embeddings_)


def test_a_remembered_embedding_has_distance_zero_at_any_length():
    x = draw(10)
    torch.testing.assert_close(MemoryBank().fit(x).distances(3 * x), torch.zeros(10), atol=1e-6, rtol=0)


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


def test_few_shot_is_drawn_from_the_seed():
    drawn = [few_shot(30, 4, torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 4


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (lambda: MemoryBank().fit([]), "at least one embedding"),
        (lambda: MemoryBank().fit(torch.zeros(2, 3)), "length zero"),
        (lambda: MemoryBank().fit(torch.full((2, 3), float("inf"))), "not finite"),
        (lambda: MemoryBank().distances(draw(2)), "call fit first"),
        (lambda: MemoryBank().fit(draw(3)).distances(draw(2, 5)), r"shape \(2, 5\); \[n, 16\]"),
        (lambda: few_shot(3, 4, torch.Generator()), "only 3 normal training images"),
        (lambda: coreset(draw(3), 4, torch.Generator()), "between 1 and 3"),
    ],
)
def test_each_mistake_ends_in_a_sentence(action, sentence):
    with pytest.raises(InputError, match=sentence):
        action()
