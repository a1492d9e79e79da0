"""What runs on a faked accelerator and on a real one: the same cases, whose numbers are those of the CPU."""

import numpy as np
import pandas as pd
from PIL import Image

from dinodp import store
from dinodp.embeddings import Embedder, EmbeddingReader
from dinodp.families import FAMILIES, model_options
from dinodp.families.stages import fit_state, is_placed, model_of, patch_scores
from dinodp.jobs.devices import device_of_models
from dinodp.jobs.origin import sha256

METHODS = (  # of own scans
    {"family": "dpmm", "components": 8, "epochs": 1},
    {"family": "eb_mixture", "components": 8, "epochs": 2},  # leaves the background out
    {"family": "patchcore", "max_embeddings": 300, "background": "leave_out"},
    {"family": "retrieval_bank", "images": 2, "max_images": 8},
    {"family": "padim", "background": "leave_out", "reg_covar": 0.01},
)
NOT_FITTED = {"control", "external"}  # they compute nothing
SMALL = {"components": 4, "epochs": 2, "images_per_batch": 2, "random_dims": 4, "n_layers": 2, "coreset_fraction": 0.3}
MORE = (
    {"family": "dpmm", "covariance": "full", "reg_covar": 0.01},
    {"family": "dpmm", "covariance": "spherical"},
    {"family": "dpmm", "pca_dims": 4, "position": "added"},
    {"family": "dpmm", "position": "appended", "init": "paper"},
    {"family": "eb_mixture", "scores": ["mahalanobis", "log_likelihood"]},
    {"family": "memory_bank", "bank_memory_gib": 1e-9, "coreset_fraction": None},
    {"family": "padim", "background": "leave_out", "reg_covar": 0.01},
    {"family": "patchcore", "background": "leave_out"},
    {"family": "retrieval_bank", "images": 2, "window": 1, "background": "leave_out"},
    {"family": "bayesian_mixture", "components": 3},
)
ENTRIES = [{"family": name} for name in FAMILIES if name not in NOT_FITTED] + list(MORE)


def named(entry):
    """An entry as the name of a test."""
    return "-".join(map(str, entry.values()))


def made_embeddings(path):
    """A reader of a few clustered embeddings, some of them of the background."""
    random = np.random.default_rng(0)
    tokens = random.normal(size=(3, 6))[random.integers(0, 3, (8, 4, 5))] + 0.1 * random.normal(size=(8, 4, 5, 6))
    with store.writing(path, "embeddings", {}) as file:
        file.create_dataset("tokens", data=tokens.astype(np.float16))
        file.create_dataset("foreground", data=random.random((8, 4, 5)) > 0.2)
    return EmbeddingReader(path, grid=None)


def small(entry):
    """The options of an entry, of few components and passes."""
    family = FAMILIES[entry["family"]]
    return model_options({**{key: value for key, value in SMALL.items() if key in family.model_fields}, **entry})


def scored(options, source, device):
    """Scores of the first images, from tokens of a file and from tokens that are where models compute."""
    state = fit_state(options, source, source, seed=1, device=device).state
    model, images = model_of(options, state, source, seed=1, device=device), [0, 1]
    shown, found = source.foreground(images) if options.background == "leave_out" else None, {}
    for place in ("cpu", device_of_models(device)):
        tokens = source.read(images).to(place)
        maps = patch_scores(model, tokens, pd.DataFrame(index=images), shown)
        own = model.image_scores(tokens, maps, shown if shown is None else shown.to(place)) if is_placed(model) else {}
        found |= {f"{name}, tokens {place}": values for name, values in maps.items()}
        found |= {f"{name} of images, tokens {place}": values for name, values in own.items()}
    return found


def pictures(n):
    """Noise, uint8 [64, 64, 3] each."""
    return [np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8) for seed in range(n)]


def embedded(backbone, n=5):
    """Batches of two of the embeddings of n pictures."""
    return list(Embedder(backbone, 2).embed(pictures(n)))


def frame_of_pictures(folder, n):
    """What the embedding of a split takes, of n pictures that are written into the folder."""
    paths = [folder / f"{index}.png" for index in range(n)]
    for path, picture in zip(paths, pictures(n), strict=True):
        Image.fromarray(picture).save(path)
    return pd.DataFrame([{"image": str(path), "image_sha256": sha256(path.read_bytes())} for path in paths])
