"""Diagonal fit: a step against the four matrix products it needs, and an iteration of scikit-learn's.

Reaches: 1.5 times the products, embeddings streamed from HDF5; three times faster than scikit-learn; memory that does
not grow with the images; 12,288 x 384 with K = 500 under a second on 2 cores and within 1 GiB beyond the data.
"""

import sys
import tempfile
import warnings
from argparse import Namespace
from pathlib import Path

import torch
from made_data import clustered, embeddings_file
from runner import Row, alternate, arguments, child_peak_mib, median, peak_mib, report, set_threads, timed
from sklearn.mixture import BayesianGaussianMixture

from dinodp.embeddings import EmbeddingReader
from dinodp.models import DirichletProcessMixture, fit_mixture
from dinodp.models.fitting import _run_epoch

N, D, K, IMAGES = 12_288, 384, 500, 12


def matrix_products(x: torch.Tensor, means: torch.Tensor) -> None:
    """The products of an E-step (two of n x K x D) and an M-step (two more)."""
    r = torch.mm(x, means.T)
    r.addmm_(x, means.T)
    torch.mm(r.T, x)
    torch.mm(r.T, x)


def step_against_products(device: str, repeats: int) -> Row:
    x = clustered(N, D).to(device)
    mixture = DirichletProcessMixture(K, device=device)
    before = peak_mib()
    mixture.initialize(x, generator=torch.Generator().manual_seed(0))
    mixture.partial_fit(x)
    beyond = peak_mib() - before
    row = alternate(lambda: mixture.partial_fit(x), lambda: matrix_products(x, mixture.means_), repeats)
    return {"what": "step in memory / matrix products", **row, "mib_beyond_data": round(beyond)}


def epoch_against_products(device: str, repeats: int, n_images: int) -> Row:
    """A whole epoch through the reader (float16 to float32, normalised, prefetched); the products of its batches."""
    with tempfile.TemporaryDirectory() as folder:
        reader = EmbeddingReader(embeddings_file(Path(folder) / "train.h5", n_images))
        mixture = DirichletProcessMixture(K, device=device)
        x = reader.read(range(IMAGES)).flatten(0, 2).to(device)
        mixture.initialize(x, generator=torch.Generator().manual_seed(0))

        def epoch() -> None:
            _run_epoch(mixture, reader, IMAGES, torch.Generator().manual_seed(1))

        def products() -> None:
            for _ in range(n_images // IMAGES):
                matrix_products(x, mixture.means_)

        row = alternate(epoch, products, repeats)
    return {"what": "epoch streamed from HDF5 / matrix products", "images": n_images, **row}


def step_against_scikit_learn(repeats: int, n: int, k: int) -> Row:
    """One of our steps and one iteration of scikit-learn's variational EM: fits of 3 and of 1 iteration, halved."""
    x = clustered(n, D)
    mixture = DirichletProcessMixture(k)
    mixture.initialize(x, generator=torch.Generator().manual_seed(0))
    array = x.numpy()

    def theirs(iterations: int) -> None:
        model = BayesianGaussianMixture(
            n_components=k,
            covariance_type="diag",
            max_iter=iterations,
            tol=0,
            init_params="random_from_data",
            random_state=0,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(array)

    mixture.partial_fit(x)  # warm
    ratios: dict[str, list[float]] = {"wall": [], "cpu": []}
    for _ in range(repeats):
        ours, one, three = timed(lambda: mixture.partial_fit(x)), timed(lambda: theirs(1)), timed(lambda: theirs(3))
        for index, kind in enumerate(ratios):
            ratios[kind].append(2 * ours[index] / (three[index] - one[index]))
    return {
        "what": "step / iteration of scikit-learn's BayesianGaussianMixture",
        "n": n,
        "k": k,
        "repeats": repeats,
        "ratio": {kind: sorted(float(f"{value:.4g}") for value in values) for kind, values in ratios.items()},
        "ours_s": {"wall": median(ours[0]), "cpu": median(ours[1])},
    }


def fit_of(n_images: int) -> None:
    """A fit of one epoch from a file of so many images; prints its peak memory."""
    set_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        reader = EmbeddingReader(embeddings_file(Path(folder) / "train.h5", n_images))
        mixture = DirichletProcessMixture(100)
        generator = torch.Generator().manual_seed(0)
        valid = EmbeddingReader(reader.path, rows=range(12))
        fit_mixture(mixture, reader, valid, epochs=1, images_per_batch=12, generator=generator, init="spread")
        print(peak_mib())


def memory_of_images() -> Row:
    peaks = {n: round(child_peak_mib("fit_diagonal.py", "--fit", str(n))) for n in (96, 384, 1536)}
    return {"what": "peak MiB of a fit by number of images (K = 100)", "peak_mib": peaks}


def measure(options: Namespace) -> list[Row]:
    rows = [step_against_products(options.device, options.repeats)]
    if options.small:
        return rows
    rows.append(epoch_against_products(options.device, options.repeats, 2 * IMAGES))
    return [*rows, step_against_scikit_learn(options.repeats, N, K), memory_of_images()]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fit"]:
        fit_of(int(sys.argv[2]))
    else:
        options = arguments(__doc__)
        report("fit_diagonal", measure(options), options)
