"""The number of threads changes the order of sums only: scores stay within a stated tolerance (docs/reliability.md)."""

import numpy as np
import pandas as pd
import pytest
import torch

from dinodp.families import FAMILIES, model_options
from dinodp.families.stages import fit_state, model_of

TOLERANCE = 1e-3  # of the range of a score
SMALL = {"dpmm", "gaussian_mixture", "k_means", "eb_mixture", "bayesian_mixture"}  # what has components and epochs


class Images:
    """Unit vectors of 40 images in eight clusters."""

    n_images, n_patches, dim = 40, 144, 48

    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)
        centres = 3 * torch.randn(8, 1, self.dim, generator=torch.Generator().manual_seed(9))
        x = torch.randn(8, self.n_images * 18, self.dim, generator=generator) + centres
        order = torch.randperm(self.n_images * self.n_patches, generator=generator)
        x = torch.nn.functional.normalize(x.flatten(0, 1)[order], dim=-1)
        self.data = x.reshape(self.n_images, 12, 12, self.dim)

    def read(self, indices):
        return self.data[list(indices)]

    def count(self, images):
        return len(images) * self.n_patches

    def foreground(self, indices):
        return torch.ones(len(indices), 12, 12, dtype=torch.bool)


def scores(options, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        train = Images(0)
        state = fit_state(options, train, Images(1), seed=0, device="cpu").state
        model = model_of(options, state, train, seed=0, device="cpu")
        return model.score(Images(2).read(range(4)), pd.DataFrame())
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("family", [name for name, kind in FAMILIES.items() if kind.FOR_OWN_SCANS])
def test_scores_do_not_depend_on_the_number_of_threads(family):
    few = {"components": 12} | ({"start_embeddings": 500} if family == "eb_mixture" else {})
    options = model_options({"family": family, **(few if family in SMALL else {})})
    one, four = scores(options, 1), scores(options, 4)
    for name, values in one.items():
        assert np.abs(values - four[name]).max() <= TOLERANCE * np.ptp(values), name
