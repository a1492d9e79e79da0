"""The one embedding loop, of the pipeline and of own scans."""

import threading

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dinodp.embeddings import Embedder, embed_split
from dinodp.errors import InputError
from dinodp.jobs.origin import sha256

ON_GPU = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
BY_CUDA = RuntimeError("CUDA error: out of memory")
ON_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")


class Hungry:
    """A backbone that has memory for ``limit`` pictures, and whose embeddings are their pixels."""

    name, revision, patch_size, device = "hungry", "1", 14, torch.device("cpu")

    def __init__(self, limit, error=ON_GPU):
        self.limit, self.error, self.batches, self.threads = limit, error, [], set()

    def prepare(self, image):
        self.threads.add(threading.current_thread())
        return torch.from_numpy(image.copy()).permute(2, 0, 1).float()

    def embed(self, batch):
        self.batches.append(len(batch))
        if len(batch) > self.limit:
            raise self.error
        return batch[:, :, ::14, ::14].permute(0, 2, 3, 1) + 1

    def provenance(self):
        return {"backbone": self.name}


def pictures(n=7):
    return [np.full((28, 28, 3), value, np.uint8) for value in range(n)]


@pytest.mark.parametrize("error", [ON_GPU, BY_CUDA, ON_CPU])
def test_batches_halve_when_memory_runs_out(error):
    backbone = Hungry(2, error)
    embedder = Embedder(backbone, 6)
    tokens = torch.cat(list(embedder.embed(pictures())))
    assert tokens[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]  # all, in order
    assert backbone.batches == [6, 3, 1, 1, 1, 1, 1, 1, 1]
    list(embedder.embed(pictures(2)))
    assert backbone.batches[9:] == [1, 1]  # the size stays


def test_halves_that_fit_are_as_large_as_may_be():
    backbone = Hungry(4)
    assert len(torch.cat(list(Embedder(backbone, 8).embed(pictures(20))))) == 20
    assert backbone.batches == [8, 4, 4, 4, 4, 4]


def test_whole_batches_where_memory_suffices():
    backbone = Hungry(99)
    list(Embedder(backbone, 3).embed(pictures(8)))
    assert backbone.batches == [3, 3, 2]
    assert threading.current_thread() not in backbone.threads  # prepared ahead, in others


def test_one_picture_that_does_not_fit():
    with pytest.raises(InputError, match="One image of 28 x 28 pixels does not fit into memory: lower the resolution"):
        list(Embedder(Hungry(0)).embed(pictures()))
    with pytest.raises(InputError, match="The batch size is 0; it must be at least 1"):
        Embedder(Hungry(1), 0)


def test_other_errors_of_the_backbone_are_not_hidden():
    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(Embedder(Hungry(0, RuntimeError("shape mismatch"))).embed(pictures()))


def test_pictures_of_several_sizes_stay_in_order():
    images = [np.full((28, 14 * width, 3), width, np.uint8) for width in (1, 1, 2, 1)]
    shapes = [tuple(batch.shape[:3]) for batch in Embedder(Hungry(9)).embed(images)]
    assert shapes == [(2, 2, 1), (1, 2, 2), (1, 2, 1)]


def test_only_a_few_pictures_are_read_ahead():
    read = []
    batches = Embedder(Hungry(9), 2).embed_each(range(100), lambda value: read.append(value) or pictures(1)[0])
    next(batches)
    batches.close()
    assert len(read) <= 2 * 2 + 2 * 2 + 1  # what is queued, the batch in use and the next


def test_a_split_is_embedded_where_memory_is_short(tmp_path):
    for value, pixels in enumerate(pictures()):
        Image.fromarray(pixels).save(tmp_path / f"{value}.png")
    paths = [tmp_path / f"{i}.png" for i in range(7)]
    frame = pd.DataFrame([{"image": str(path), "image_sha256": sha256(path.read_bytes())} for path in paths])
    for limit in (9, 2):
        embed_split(frame, Hungry(limit), tmp_path / f"{limit}.h5", {}, batch_size=4)
    with h5py.File(tmp_path / "9.h5") as whole, h5py.File(tmp_path / "2.h5") as halved:
        np.testing.assert_array_equal(whole["tokens"][()], halved["tokens"][()])


def test_for_a_gpu_batches_are_larger_and_pinned(monkeypatch):
    backbone, pinned = Hungry(8), []
    backbone.device = torch.device("cuda")
    empty = torch.empty

    def in_pinned_memory(shape, *, pin_memory=False, **options):
        if pin_memory:
            pinned.append(shape[0])
        return empty(shape, **options)

    monkeypatch.setattr(torch, "empty", in_pinned_memory)
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    assert len(torch.cat(list(Embedder(backbone).embed(pictures(40))))) == 40
    assert pinned == [32, 8]
    assert backbone.batches == [32, 16, 8, 8, 8, 8, 8]
    assert len(emptied) == 2  # what the failed attempts had reserved
