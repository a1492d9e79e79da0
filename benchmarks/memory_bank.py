"""Exact search in a memory bank against faiss-cpu's IndexFlatIP, same bank, queries and threads; streamed against held.

Reach: no slower than faiss; a bank larger than the memory is streamed. Needs `pip install -e .[bench]`.
"""

import tempfile
from argparse import Namespace
from functools import partial
from pathlib import Path

import torch
from made_data import bank_of, clustered, embeddings_file
from runner import Row, alternate, arguments, report, set_threads

from dinodp.embeddings import EmbeddingReader
from dinodp.models import MemoryBank
from dinodp.models.memory_bank import BANK_PER_CHUNK

D, QUERIES = 384, 4096


def against_faiss(m: int, threads: int, repeats: int) -> Row:
    import faiss

    faiss.omp_set_num_threads(threads)
    bank, queries = bank_of(m, D, "cpu"), clustered(QUERIES, D, seed=2)
    index = faiss.IndexFlatIP(D)
    index.add(bank.embeddings_.numpy())
    ours, theirs = bank.distances(queries), 1 - torch.from_numpy(index.search(queries.numpy(), 1)[0][:, 0])
    row = alternate(lambda: bank.distances(queries), lambda: index.search(queries.numpy(), 1), repeats, warm_up=0)
    about = {"bank": m, "queries": QUERIES, "threads": threads, "faiss": faiss.__version__}
    rate = {kind: round(QUERIES / seconds) for kind, seconds in row["ours_s"].items()}
    difference = float((ours - theirs).abs().max())
    return {
        "what": "search / faiss IndexFlatIP",
        **about,
        "largest_difference": difference,
        "queries_per_s": rate,
        **row,
    }


def against_products(m: int, device: str, repeats: int) -> Row:
    """On a GPU: the search (float32) against its bare matrix products, in float32 and in bfloat16."""
    bank, queries = bank_of(m, D, device), clustered(QUERIES, D, seed=2).to(device)

    def products(remembered: torch.Tensor, of: torch.Tensor) -> None:
        for part in remembered.split(BANK_PER_CHUNK):
            of @ part.T

    search = partial(bank.distances, queries)
    row = alternate(search, partial(products, bank.embeddings_.bfloat16(), queries.bfloat16()), repeats)
    exact = alternate(search, partial(products, bank.embeddings_, queries), repeats)
    about = {"bank": m, "queries": QUERIES, "ratio_to_float32_products": exact["ratio"]}
    return {"what": "search / bfloat16 matrix products", **about, **row}


def streamed_against_held(n_images: int, device: str, repeats: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        reader = EmbeddingReader(embeddings_file(Path(folder) / "train.h5", n_images))

        def chunks():
            return (
                reader.read(range(first, min(first + 8, n_images))).flatten(0, 2) for first in range(0, n_images, 8)
            )

        held, streamed = MemoryBank(device).fit(chunks()), MemoryBank(device).fit_streamed(chunks, D)
        queries = clustered(QUERIES * 4, D, seed=2)
        same = bool(torch.equal(held.distances(queries), streamed.distances(queries)))
        row = alternate(lambda: streamed.distances(queries), lambda: held.distances(queries), repeats, warm_up=0)
    return {"what": "streamed / held", "bank": n_images * 1024, "queries": len(queries), "same_bytes": same, **row}


def measure(options: Namespace) -> list[Row]:
    device, repeats, threads = options.device, options.repeats, options.threads
    if device == "cuda":
        rows = [against_products(m, device, repeats) for m in (10**6, 10**7)[: 1 if options.small else 2]]
        return rows if options.small else [*rows, streamed_against_held(1024, device, repeats)]
    sizes = (50_000,) if options.small else (50_000, 200_000)
    rows = [against_faiss(m, threads, repeats) for m in sizes]
    if options.small:
        return rows
    rows.append(streamed_against_held(64, device, repeats))
    set_threads(2)
    return [*rows, against_faiss(sizes[0], 2, repeats)]


if __name__ == "__main__":
    options = arguments(__doc__)
    report("memory_bank", measure(options), options)
