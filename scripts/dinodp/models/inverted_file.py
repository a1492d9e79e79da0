"""Approximate nearest neighbours of a memory bank: an inverted file of product-quantised residuals (IVF-PQ), by faiss.

Sources: Jégou et al., Product Quantization for Nearest Neighbor Search, PAMI 2011; faiss (Douze et al., 2024). What is
stored are plain arrays, and faiss's objects are built from them in memory: its own files are never read, for reading
one of a stranger is not safe.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dinodp.errors import InputError
from dinodp.models.components import finite_matrix
from dinodp.models.memory_bank import unit_vectors

CODEWORDS = 256  # of each part of a vector: one byte
ITERATIONS = 10  # of k-means
PROBES = 16
NUMBERS_PER_BYTE = 4  # of an embedding; faiss is fast for parts of 4 and 8 numbers
LISTS_PER_ROOT = 2  # lists for the square root of the number of embeddings
SAMPLE_PER_LIST = 64  # embeddings that the lists are learnt from
FARTHEST = 2.0  # cosine distance where none of the lists that are looked at holds anything
Arrays = dict[str, npt.NDArray[Any]]


def require_faiss() -> Any:
    """The package. Raises InputError where it is not installed."""
    if importlib.util.find_spec("faiss") is None:
        raise InputError(
            "The search ivfpq needs a package that is not installed: `pip install 'dinodp[faiss]'`, or take the search "
            "exact."
        )
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


def usual_lists(n_embeddings: int) -> int:
    """How many lists an index of so many embeddings has where nothing is said."""
    return max(1, min(n_embeddings // SAMPLE_PER_LIST, round(LISTS_PER_ROOT * math.sqrt(n_embeddings))))


def usual_code_bytes(dim: int) -> int:
    """How many bytes stand for an embedding of ``dim`` numbers where nothing is said."""
    return dim // NUMBERS_PER_BYTE if dim % NUMBERS_PER_BYTE == 0 else dim


def sample_size(lists: int) -> int:
    """How many embeddings lists and codewords are learnt from, where there are as many."""
    return SAMPLE_PER_LIST * max(lists, CODEWORDS)


class InvertedFile:
    """Distances to the nearest of many embeddings that are known by ``code_bytes`` bytes each, of the nearest lists.

    ``centroids`` [list, D], unit vectors; ``codebooks`` [part, 256, D / part], of what embeddings differ from their
    centroid by; ``codes`` uint8 [m, part], one list after the other; ``list_sizes`` int64 [list].
    """

    def __init__(self, arrays: Mapping[str, Any], probes: int = PROBES) -> None:
        """From the arrays of `arrays`. Raises InputError where they do not fit together, or faiss is missing."""
        centroids, codebooks = (np.ascontiguousarray(arrays[name], np.float32) for name in ("centroids", "codebooks"))
        codes, sizes = np.ascontiguousarray(arrays["codes"], np.uint8), np.asarray(arrays["list_sizes"], np.int64)
        _require_fitting(centroids, codebooks, codes, sizes)
        self.dim_ = centroids.shape[1]
        self._faiss = require_faiss()
        self._index = self._empty(centroids, codebooks)
        self._index.nprobe = probes
        ends = np.cumsum(sizes)
        for number, (size, end) in enumerate(zip(sizes.tolist(), ends.tolist(), strict=True)):
            if size:
                self._add(number, np.arange(end - size, end), codes[end - size : end])
        self._index.ntotal = len(codes)

    def _empty(self, centroids: npt.NDArray[np.float32], codebooks: npt.NDArray[np.float32]) -> Any:
        faiss = self._faiss
        self._quantizer = faiss.IndexFlatIP(self.dim_)  # held here: the index only points at it
        self._quantizer.add(centroids)
        index = faiss.IndexIVFPQ(
            self._quantizer, self.dim_, len(centroids), len(codebooks), 8, faiss.METRIC_INNER_PRODUCT
        )
        faiss.copy_array_to_vector(codebooks.ravel(), index.pq.centroids)
        index.is_trained = True
        return index

    def _add(self, number: int, ids: npt.NDArray[np.int64], codes: npt.NDArray[np.uint8]) -> None:
        pointer = self._faiss.swig_ptr
        self._index.invlists.add_entries(number, len(ids), pointer(ids), pointer(codes))

    def distances(self, x: torch.Tensor) -> torch.Tensor:
        """About 1 - the largest cosine similarity [n], float32, of embeddings [n, D] to those of the nearest lists."""
        return self.nearest(x)[0]

    def nearest(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Distance [n] and place among the codes [n]; -1 where the lists that were looked at hold nothing.

        Raises InputError for values that are not finite, and for embeddings of length zero.
        """
        queries = unit_vectors(finite_matrix(x, self.dim_)).cpu().numpy()
        self._faiss.omp_set_num_threads(torch.get_num_threads())
        similarity, index = self._index.search(queries, 1)
        distance = np.where(index < 0, np.float32(FARTHEST), 1 - similarity)
        return torch.from_numpy(distance[:, 0]), torch.from_numpy(index[:, 0])


def learn_inverted_file(
    sample: torch.Tensor,
    chunks: Iterable[torch.Tensor],
    *,
    lists: int,
    code_bytes: int,
    generator: torch.Generator,
) -> Arrays:
    """The arrays of an `InvertedFile`: lists and codewords are learnt from ``sample`` [n, D], ``chunks`` are added.

    Memory grows with the codes alone. Raises InputError without faiss, for fewer than 256 embeddings or fewer than
    lists, and where D is no multiple of ``code_bytes``.
    """
    faiss, dim = require_faiss(), sample.shape[1]
    _require_learnable(len(sample), dim, lists, code_bytes)
    quantizer = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFPQ(quantizer, dim, lists, code_bytes, 8, faiss.METRIC_INNER_PRODUCT)
    for parameters in (index.cp, index.pq.cp):
        parameters.niter, parameters.min_points_per_centroid = ITERATIONS, 1
        parameters.seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    index.cp.max_points_per_centroid = index.pq.cp.max_points_per_centroid = SAMPLE_PER_LIST
    index.train(unit_vectors(finite_matrix(sample)).numpy())
    for chunk in chunks:
        index.add(unit_vectors(finite_matrix(chunk, dim)).numpy())
    sizes = [index.invlists.list_size(number) for number in range(lists)]
    codes = [
        faiss.rev_swig_ptr(index.invlists.get_codes(number), size * code_bytes).copy()
        for number, size in enumerate(sizes)
        if size
    ]
    codebooks = faiss.vector_to_array(index.pq.centroids).reshape(code_bytes, CODEWORDS, -1)
    return {
        "centroids": quantizer.reconstruct_n(0, lists),
        "codebooks": codebooks,
        "codes": np.concatenate(codes).reshape(-1, code_bytes),
        "list_sizes": np.asarray(sizes, dtype=np.int64),
    }


def _require_learnable(n: int, dim: int, lists: int, code_bytes: int) -> None:
    if n < max(CODEWORDS, lists):
        raise InputError(
            f"The search ivfpq learns {CODEWORDS} codewords and {lists} lists, and there are only {n} embeddings to "
            "learn from: take the search exact, or fewer lists."
        )
    if dim % code_bytes:
        raise InputError(
            f"Embeddings of {dim} numbers cannot be cut into {code_bytes} equal parts (code_bytes): choose a divisor "
            f"of {dim}."
        )


def _require_fitting(centroids: Any, codebooks: Any, codes: Any, sizes: Any) -> None:
    parts = codes.shape[1] if codes.ndim == 2 else 0
    fits = (
        centroids.ndim == 2
        and parts > 0
        and codebooks.shape == (parts, CODEWORDS, centroids.shape[1] // parts)
        and centroids.shape[1] % parts == 0
        and sizes.shape == (len(centroids),)
        and len(sizes) > 0
        and int(sizes.min()) >= 0
        and sum(sizes.tolist()) == len(codes)
    )
    if not fits:
        raise InputError("The arrays of the index (centroids, codebooks, codes, list_sizes) do not fit together.")
