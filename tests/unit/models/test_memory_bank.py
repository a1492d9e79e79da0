import weakref

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from dinodp.errors import InputError
from dinodp.models import MemoryBank, few_shot, memory_bank


def draw(n, d=16, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_agrees_with_scikit_learn_whatever_the_chunks(monkeypatch):
    bank, queries = draw(300), draw(50, seed=1)
    distance, index = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(bank).kneighbors(queries)
    monkeypatch.setattr(memory_bank, "ROWS_PER_BLOCK", 7)
    monkeypatch.setattr(memory_bank, "BANK_PER_BLOCK", 11)
    monkeypatch.setattr(memory_bank, "BANK_PER_CHUNK", 31)
    ours, position = MemoryBank().fit(bank).nearest(queries)
    np.testing.assert_allclose(ours, distance[:, 0], atol=1e-6)
    assert position.tolist() == index[:, 0].tolist()


def test_the_path_of_a_device_finds_the_same():
    bank, queries = MemoryBank().fit(draw(3000)).embeddings_, MemoryBank().fit(draw(1500, seed=1)).embeddings_
    found = []
    for search in (memory_bank.search_on_cpu, memory_bank._search_on_device):
        best, index = torch.full((1500,), -torch.inf), torch.zeros(1500, dtype=torch.int64)
        search(queries, bank, 10, best, index)
        found.append((best, index))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-6, rtol=0)
    assert torch.equal(found[0][1], found[1][1])
    assert int(found[0][1].min()) >= 10


@pytest.mark.parametrize("chunk", [5, 16, 97, 400])
def test_a_streamed_bank_gives_the_same_bytes(monkeypatch, chunk):
    monkeypatch.setattr(memory_bank, "BANK_PER_CHUNK", 64)
    x, queries = draw(300), draw(40, seed=1)
    streamed = MemoryBank().fit_streamed(lambda: x.split(chunk), 16)
    for _ in range(2):
        for ours, plain in zip(streamed.nearest(queries), MemoryBank().fit(x).nearest(queries), strict=True):
            assert torch.equal(ours, plain)


def test_a_bank_of_known_size_is_the_same():
    x = draw(40)
    assert torch.equal(MemoryBank().fit(iter(x.split(9)), 40).embeddings_, MemoryBank().fit(x.split(9)).embeddings_)


def test_a_bank_that_is_let_go_gives_its_memory_back_at_once():
    bank = MemoryBank().fit(draw(10))
    gone = weakref.ref(bank)
    del bank
    assert gone() is None


def test_chunks_make_the_same_bank():
    x = draw(40)
    torch.testing.assert_close(MemoryBank().fit(x.split(9)).embeddings_, MemoryBank().fit(x).embeddings_)


def test_a_remembered_embedding_has_distance_zero_at_any_length():
    x = draw(10)
    torch.testing.assert_close(MemoryBank().fit(x).distances(3 * x), torch.zeros(10), atol=1e-6, rtol=0)


def test_few_shot_is_drawn_from_the_seed():
    drawn = [few_shot(30, 4, torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 4


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (lambda: MemoryBank().fit([]), "at least one embedding"),
        (lambda: MemoryBank().fit(torch.zeros(2, 3)), "length zero"),
        (lambda: MemoryBank().fit_streamed(lambda: [torch.zeros(2, 3)], 3).distances(draw(2, 3)), "length zero"),
        (lambda: MemoryBank().fit(torch.full((2, 3), float("inf"))), "not finite"),
        (lambda: MemoryBank().distances(draw(2)), "call fit first"),
        (lambda: MemoryBank().fit(draw(3)).distances(draw(2, 5)), r"shape \(2, 5\); \[n, 16\]"),
        (lambda: few_shot(3, 4, torch.Generator()), "only 3 normal training images"),
    ],
)
def test_each_mistake_ends_in_a_sentence(action, sentence):
    with pytest.raises(InputError, match=sentence):
        action()
