"""Numbers at the edge: a defined result or one sentence, for every family (docs/reliability.md)."""

import numpy as np
import pytest
from scan_phantoms import AFFINE, FAST_FIT, WINDOW, head, healthy_folder, photo, save

from dinodp.backbones.classical_descriptor import ClassicalBackbone
from dinodp.cli import main
from dinodp.errors import InputError
from dinodp.scans import AnomalyDetector

METHODS = {
    "dpmm": {"family": "dpmm", "components": 4, "epochs": 1},
    "spherical": {"family": "dpmm", "components": 4, "epochs": 1, "covariance": "spherical"},
    "full": {"family": "dpmm", "components": 2, "epochs": 1, "covariance": "full", "pca_dims": 8},
    "gaussian_mixture": {"family": "gaussian_mixture", "components": 4, "epochs": 1},
    "bayesian_mixture": {"family": "bayesian_mixture", "components": 4, "epochs": 5},
    "k_means": {"family": "k_means", "components": 4, "epochs": 1},
    "gaussian": {"family": "gaussian"},
    "pca_residual": {"family": "pca_residual"},
    "padim": {"family": "padim", "random_dims": 8},
    "retrieval_bank": {"family": "retrieval_bank", "images": 2, "window": 1},
    "patchcore": {"family": "patchcore"},
    "memory_bank": {"family": "memory_bank"},
    "coreset": {"family": "memory_bank", "coreset_fraction": 0.1},
}
PHOTOS = [photo(seed) for seed in range(4)]
ALIKE = [PHOTOS[0]] * 4
CONSTANT = [np.full((80, 112), 100, np.uint8)] * 4


def fitted(method, images=PHOTOS, held_out=0.4, **options):
    return AnomalyDetector("classical", resolution=112, method={**METHODS[method], **options}, held_out=held_out).fit(
        images
    )


@pytest.fixture
def embeddings(monkeypatch):
    """Have the backbone's embeddings changed."""
    real = ClassicalBackbone.embed

    def change(by):
        monkeypatch.setattr(ClassicalBackbone, "embed", lambda self, pixels: by(real(self, pixels)))

    return change


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("images", "held_out"), [(ALIKE, 0.4), (PHOTOS[:2], 0.5)], ids=["duplicates", "one"])
def test_duplicated_images_and_a_single_one_give_finite_scores(method, images, held_out):
    detector = fitted(method, images, held_out)
    scores = -detector.score_samples([photo(9, spot=True), PHOTOS[0]])
    assert np.isfinite(scores).all()
    assert scores[0] > scores[1]


@pytest.mark.parametrize("method", METHODS)
def test_constant_images_are_refused(method):
    with pytest.raises(InputError, match="has no contrast: every value of its foreground is 100"):
        fitted(method, CONSTANT)


def test_a_constant_new_image_is_refused():
    with pytest.raises(InputError, match="has no contrast"):
        fitted("k_means").score_samples(CONSTANT[:1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_embeddings_that_are_all_alike_are_refused(method, value, embeddings):
    embeddings(lambda tokens: tokens * 0 + value)
    with pytest.raises(InputError, match="gives the same embedding for every patch"):
        fitted(method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("normalise", "factor"), [(False, 1e6), (True, np.nan), (True, np.inf)])
def test_what_float16_cannot_hold_is_refused(method, normalise, factor, embeddings):
    embeddings(lambda tokens: tokens * factor)
    with pytest.raises(InputError, match="not finite, or above 65504"):
        fitted(method, normalise=normalise)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_embeddings_of_a_new_scan_that_are_not_finite_are_a_failed_scan(method, factor, embeddings):
    detector = fitted(method)
    embeddings(lambda tokens: tokens * factor)
    with pytest.raises(InputError, match="not finite"):
        detector.score_samples(PHOTOS[:1])


def test_unit_length_saves_large_embeddings(embeddings):
    expected = fitted("dpmm").score_samples(PHOTOS[:1])
    embeddings(lambda tokens: tokens * 1e6)
    np.testing.assert_allclose(fitted("dpmm").score_samples(PHOTOS[:1]), expected, rtol=0.5)


@pytest.mark.parametrize("method", ["dpmm", "full", "gaussian_mixture", "bayesian_mixture"])
def test_fewer_embeddings_than_components_are_refused(method):
    with pytest.raises(InputError, match="embeddings cannot start 5000 components"):
        fitted(method, components=5000)


@pytest.mark.parametrize("method", [name for name, entry in METHODS.items() if "components" in entry])
def test_one_component_is_refused_and_two_are_enough(method):
    with pytest.raises(InputError, match="components: 1 is below the least allowed, 2"):
        fitted(method, components=1)
    assert np.isfinite(fitted(method, components=2).score_samples(PHOTOS)).all()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    command = ["fit", str(healthy_folder(folder / "healthy", 3)), "--out", str(folder / "m.h5"), *FAST_FIT, *WINDOW]
    assert main(command) == 0
    return folder / "m.h5"


FORCED = {
    "nothing of it would be seen": [-head(7), head(7) * np.float32(1e-30), head(7) + np.int16(2000) * (head(7) > 0)],
    "nothing of its foreground lies within the field of view": [np.pad(head(7)[:6], ((0, 150), (0, 0), (0, 0)))],
    "has no contrast": [(head(7) > 0) * np.int16(300)],
}


@pytest.mark.parametrize("sentence", FORCED)
def test_a_forced_scan_of_which_nothing_is_seen_is_a_failed_scan(model, tmp_path, capsys, sentence):
    """Black on black would score lower than any healthy scan."""
    for number, voxels in enumerate(FORCED[sentence]):
        if "field of view" in sentence:
            voxels[-6:] = voxels[:6]
        save(tmp_path / f"new/{number}.nii", voxels, AFFINE)
    command = ["predict", str(tmp_path / "new"), "--model", str(model), "--out", str(tmp_path / "out"), "--force"]
    assert main(command) == 1
    assert capsys.readouterr().out.count(sentence) == len(FORCED[sentence])
    rows = (tmp_path / "out/scans.csv").read_text().splitlines()[1:]
    assert [",failed,,,,,,,," in row for row in rows] == [True] * len(rows)
    assert len(rows) == len(FORCED[sentence])
