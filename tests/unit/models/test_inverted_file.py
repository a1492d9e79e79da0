import importlib.util

import numpy as np
import pytest
import torch

from dinodp import store
from dinodp.errors import InputError
from dinodp.models import MemoryBank
from dinodp.models.inverted_file import InvertedFile, learn_inverted_file, usual_lists

LISTS, BYTES, DIM = 40, 8, 32


def clusters(n, seed):
    """Unit vectors [n, DIM] about 60 centres, with fewer directions of variance than dimensions."""
    fixed, generator = (torch.Generator().manual_seed(number) for number in (7, seed))
    centres, axes = torch.randn(60, DIM, generator=fixed), torch.randn(6, DIM, generator=fixed)
    chosen = torch.randint(60, (n,), generator=generator)
    x = centres[chosen] + 0.5 * torch.randn(n, 6, generator=generator) @ axes
    return torch.nn.functional.normalize(x, dim=1)


def learn(x, seed=0, **changed):
    options = {"lists": LISTS, "code_bytes": BYTES, "generator": torch.Generator().manual_seed(seed), **changed}
    return learn_inverted_file(x[::2], x.split(700), **options)


@pytest.fixture(scope="module")
def learnt():
    pytest.importorskip("faiss")
    x = clusters(6000, seed=1)
    return x, learn(x)


def test_most_nearest_neighbours_are_those_of_an_exact_search(learnt):
    x, arrays = learnt
    queries = clusters(500, seed=2)
    distance, index = MemoryBank().fit(x).nearest(queries)
    ours, place = InvertedFile(arrays, probes=8).nearest(queries)
    lists = (x @ torch.from_numpy(arrays["centroids"]).T).argmax(1)
    assert torch.bincount(lists, minlength=LISTS).tolist() == arrays["list_sizes"].tolist()
    order = torch.argsort(lists, stable=True)  # of the embeddings, as their codes are stored
    # Over seven draws and starts: 0.48 to 0.56 of the neighbours, 0.027 to 0.031, a cosine of 0.54 at the least.
    assert float((order[place] == index).float().mean()) > 0.4
    assert float((ours - distance).abs().mean()) < 0.04
    assert float((x[order[place]] * queries).sum(1).min()) > 0.4  # what is found lies near by


def test_more_probes_find_what_is_nearer(learnt):
    _, arrays = learnt
    queries = clusters(500, seed=2)
    few, all_of_them = (InvertedFile(arrays, probes=number).distances(queries) for number in (1, LISTS))
    assert bool((all_of_them <= few + 1e-5).all())
    assert bool((all_of_them < few - 1e-5).any())


def test_the_same_seed_learns_the_same_bytes(learnt):
    x, arrays = learnt
    again, other = learn(x), learn(x, seed=1)
    assert all(again[name].tobytes() == value.tobytes() for name, value in arrays.items())
    assert other["centroids"].tobytes() != arrays["centroids"].tobytes()


def test_a_file_holds_it_as_plain_arrays(learnt, tmp_path):
    x, arrays = learnt
    store.write_state(tmp_path / "m.h5", {}, arrays, {})
    _, read, _ = store.read_state(tmp_path / "m.h5")
    assert read["codes"].shape == (len(x), BYTES)
    assert read["list_sizes"].sum() == len(x)
    queries = clusters(50, seed=3)
    assert torch.equal(InvertedFile(read).distances(queries), InvertedFile(arrays).distances(queries))


def test_where_the_lists_are_empty_all_is_far(learnt):
    _, arrays = learnt
    sizes = np.zeros_like(arrays["list_sizes"])
    sizes[3] = len(arrays["codes"])
    query = torch.from_numpy(arrays["centroids"][:1])
    assert float(InvertedFile({**arrays, "list_sizes": sizes}, probes=1).distances(query)[0]) == 2


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("list_sizes", lambda sizes: sizes + 1),
        ("list_sizes", lambda sizes: np.where(np.arange(len(sizes)) == 0, -1, sizes)),
        ("list_sizes", lambda sizes: sizes[:-1]),
        ("codes", lambda codes: codes[:-1]),
        ("codes", lambda codes: codes[:, :-1]),
        ("codes", lambda codes: codes[:, 0]),
        ("codebooks", lambda books: books[:, :-1]),
        ("centroids", lambda centroids: centroids[:, :-1]),
        ("centroids", lambda centroids: centroids[0]),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(learnt, name, change):
    _, arrays = learnt
    with pytest.raises(InputError, match="do not fit together"):
        InvertedFile({**arrays, name: change(arrays[name])})


@pytest.mark.parametrize(
    ("n", "changed", "sentence"),
    [
        (300, {}, "learns 256 codewords and 40 lists, and there are only 150 embeddings"),
        (1000, {"lists": 501}, "256 codewords and 501 lists, and there are only 500 embeddings"),
        (1000, {"code_bytes": 5}, "32 numbers cannot be cut into 5 equal parts .code_bytes.: choose a divisor of 32"),
    ],
)
def test_what_cannot_be_learnt_is_a_sentence(n, changed, sentence):
    pytest.importorskip("faiss")
    with pytest.raises(InputError, match=sentence):
        learn(clusters(n, seed=1), **changed)


def test_without_faiss_the_cure_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "faiss" else find(name))
    with pytest.raises(InputError, match=r"not installed: `pip install 'dinodp\[faiss\]'`, or take the search exact"):
        learn(clusters(600, seed=1))


def test_lists_grow_with_the_root():
    assert [usual_lists(n) for n in (1, 1000, 10_000, 1_000_000)] == [1, 15, 156, 2000]
