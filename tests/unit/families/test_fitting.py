import numpy as np
import pandas as pd
import pytest
import torch

from dinodp.errors import InputError
from dinodp.families.fitting import fit_mixture
from dinodp.families.mixture import Mixture
from dinodp.images import image_score
from dinodp.jobs.checkpoints import Checkpoint
from dinodp.models import DirichletProcessMixture


class Images:
    """Embeddings [n, 4, 4, 3] in memory; may break off after some reads, as an interrupted job does."""

    def __init__(self, n, seed, reads=None):
        generator = torch.Generator().manual_seed(seed)
        centres = torch.eye(3)[torch.randint(3, (n, 4, 4), generator=generator)]
        self.data = centres + 0.1 * torch.randn(n, 4, 4, 3, generator=generator)
        self.n_images, self.reads = n, reads

    def read(self, indices):
        if self.reads is not None:
            self.reads -= 1
            if self.reads < 0:
                raise KeyboardInterrupt
        return self.data[list(indices)]


def fit(train, checkpoint=None, init="spread", epochs=4, seed=0):
    mixture = DirichletProcessMixture(6)
    history = fit_mixture(
        mixture,
        train,
        Images(4, seed=9),
        epochs=epochs,
        images_per_batch=4,
        generator=torch.Generator().manual_seed(seed),
        init=init,
        checkpoint=checkpoint,
    )
    return mixture, history


@pytest.mark.parametrize("init", ["paper", "spread"])
def test_keeps_the_epoch_with_the_best_validation_likelihood(init):
    mixture, history = fit(Images(10, seed=1), init=init)
    best = max(history.validation_log_likelihood)
    again = mixture.score_samples(Images(4, seed=9).data.flatten(0, 2)).double().mean()
    assert float(again) == pytest.approx(best, abs=1e-5)
    assert {len(values) for values in history.arrays().values()} == {4}


def test_an_interrupted_fit_ends_with_the_same_numbers(tmp_path):
    whole, history = fit(Images(10, seed=1))
    checkpoint = Checkpoint(tmp_path / "checkpoint", "this fit")
    with pytest.raises(KeyboardInterrupt):
        fit(Images(10, seed=1, reads=18), checkpoint)
    resumed, resumed_history = fit(Images(10, seed=1), checkpoint)
    assert resumed_history == history
    for name, value in whole.state_dict().items():
        np.testing.assert_array_equal(np.asarray(resumed.state_dict()[name]), np.asarray(value))


@pytest.mark.parametrize("damage", ["other fit", "cut", "emptied", "flipped"])
def test_a_checkpoint_of_another_fit_or_a_damaged_one_is_dropped(tmp_path, damage, caplog):
    caplog.set_level("INFO")
    whole, history = fit(Images(10, seed=1))
    checkpoint = Checkpoint(tmp_path / "checkpoint", "this fit")
    before = checkpoint._replace(key="killed fit") if damage == "other fit" else checkpoint
    with pytest.raises(KeyboardInterrupt):
        fit(Images(10, seed=2, reads=18), before)
    content = bytearray(checkpoint.path.read_bytes())
    if damage == "flipped":  # among the numbers, which torch itself does not check
        content[content.index(mixture_bytes(checkpoint.path))] ^= 1
    checkpoint.path.write_bytes({"cut": content[:900], "emptied": b""}.get(damage, bytes(content)))
    again, found = fit(Images(10, seed=1), checkpoint)
    assert found == history
    np.testing.assert_array_equal(np.asarray(again.means_), np.asarray(whole.means_))
    reason = "it is of other options, data or code" if damage == "other fit" else "it is damaged"
    assert f"Drop the checkpoint {checkpoint.path}, {reason}: the fit starts anew." in caplog.text


def mixture_bytes(path):
    return np.asarray(torch.load(path, weights_only=True)["mixture"]["means"]).tobytes()


def test_another_seed_gives_another_fit():
    assert not torch.equal(fit(Images(10, seed=1))[0].means_, fit(Images(10, seed=1), seed=1)[0].means_)


def test_an_empty_split_is_refused():
    with pytest.raises(InputError, match="one of them has none"):
        fit(Images(0, seed=1))


def test_patch_scores_keep_the_grid():
    mixture, _ = fit(Images(10, seed=1))
    tokens = Images(3, seed=2).data
    scores = Mixture(mixture, ["cosine", "log_likelihood"]).score(tokens, pd.DataFrame())
    assert scores["cosine"].shape == (3, 4, 4)
    np.testing.assert_allclose(
        scores["log_likelihood"][1, 2, 3], -mixture.score_samples(tokens[1, 2, 3][None])[0], rtol=1e-5
    )


def test_image_score_is_the_mean_of_the_highest():
    maps = np.arange(400, dtype=np.float32).reshape(1, 20, 20)
    assert image_score(maps).tolist() == [397.5]
    assert image_score(maps[:, :3, :3]).tolist() == [42.0]
