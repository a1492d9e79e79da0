"""Fit, save, load and score with the conventions of scikit-learn."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import yaml
from scan_phantoms import (
    AFFINE,
    FAST,
    ORIENTATIONS,
    head,
    healthy_folder,
    lesion_mask,
    oblique,
    photo,
    reoriented,
    save,
)
from sklearn.base import clone

from dinodp.backbones.classical import ClassicalBackbone
from dinodp.cli import _parser
from dinodp.errors import InputError
from dinodp.families.scores import BANK_SCORES, MIXTURE_SCORES
from dinodp.scans.detecting.detector import AnomalyDetector
from dinodp.scans.detecting.fitting import UnreadScan, split_subjects, unread_scans
from dinodp.scans.detecting.settings import DEFAULT_BACKBONE, DEFAULT_SCORES, PINNED_REVISIONS, SCORES, Settings
from dinodp.scans.reading.folder import find_scans


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return healthy_folder(tmp_path_factory.mktemp("healthy"))


@pytest.fixture(scope="module")
def detector(folder):
    return AnomalyDetector(**FAST).fit(folder)


@pytest.fixture(scope="module")
def lesion(tmp_path_factory):
    return save(tmp_path_factory.mktemp("new") / "lesion.nii.gz", head(7, lesion=True))


def test_conventions_of_scikit_learn(detector, folder, lesion):
    assert clone(detector).get_params() == detector.get_params()
    assert not hasattr(clone(detector), "fitted_")
    healthy = save(lesion.parent / "healthy.nii.gz", head(8))
    scans = [healthy, lesion]
    samples, decision = detector.score_samples(scans), detector.decision_function(scans)
    assert samples[0] > samples[1]
    np.testing.assert_allclose(decision, samples - detector.offset_)
    assert detector.predict(scans).tolist() == [1 if value >= 0 else -1 for value in decision]
    assert detector.predict([lesion]).tolist() == [-1]
    assert detector.score_samples(folder).shape == (5,)


def test_offset_is_the_calibrated_rank(folder):
    strict = AnomalyDetector(**FAST, held_out=0.6, false_positive_rate=0.5).fit(folder)
    scores = np.sort(strict.fitted_.calibration.scan_scores)
    assert len(scores) == 3
    assert strict.offset_ == -scores[1]  # rank ceil(0.5 * 4) = 2 of 3


def test_the_map_finds_the_lesion(detector, lesion):
    found = detector.anomaly_map(lesion)
    assert found.shape == head(0).shape
    mask, inside = lesion_mask(), head(7) > 0
    assert found[mask].mean() > np.quantile(found[inside & ~mask], 0.9)
    assert (found[~inside] == found.min()).all()


def test_same_map_for_every_orientation_and_an_oblique_one(detector, lesion, tmp_path):
    expected = detector.anomaly_map(lesion)
    for affine in (AFFINE, oblique(AFFINE)):
        for orientation in ORIENTATIONS[3::11]:
            stored, placed = reoriented(head(7, lesion=True), affine, orientation)
            found = detector.anomaly_map(save(tmp_path / "x.nii.gz", stored, placed))
            np.testing.assert_allclose(found, reoriented(expected, affine, orientation)[0], atol=1e-3)


def test_saved_and_loaded_it_gives_the_same_map(detector, folder, lesion, tmp_path):
    detector.save(tmp_path / "a.h5")
    loaded = AnomalyDetector.load(tmp_path / "a.h5")
    np.testing.assert_array_equal(loaded.anomaly_map(lesion), detector.anomaly_map(lesion))
    assert loaded.offset_ == detector.offset_
    AnomalyDetector(**FAST).fit(folder).save(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()  # same seed, same bytes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.card.md", "a.h5", "b.card.md", "b.h5"]


def test_the_rate_of_outliers_is_kept(folder, tmp_path):
    strict = AnomalyDetector(**FAST, held_out=0.6, false_positive_rate=0.5).fit(folder)
    strict.save(tmp_path / "a.h5")
    loaded = AnomalyDetector.load(tmp_path / "a.h5")
    assert loaded.get_params() == strict.get_params()
    assert loaded.offset_ == strict.offset_


@pytest.mark.parametrize("what", ["config", "state", "means", "settings", "unknown setting", "healthy", "calibration"])
def test_a_model_file_with_something_missing_is_told_in_a_sentence(detector, tmp_path, what):
    detector.save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        config = json.loads(file.attrs["config"])
        if what == "unknown setting":
            config["settings"]["colour"] = "red"
        config.pop(what, None)
        file.attrs["config"] = json.dumps(config)
        for name in {"state": ["state"], "means": ["state/means"]}.get(what, []):
            del file[name]
        if what == "config":
            del file.attrs["config"]
    with pytest.raises(InputError, match=r"a.h5 is damaged, or another version .* \(\w+: .*\): fit again"):
        AnomalyDetector.load(tmp_path / "a.h5")


def test_a_model_file_ends_in_h5(detector, tmp_path):
    for name in ("model", "model.card.md", "model.hdf5"):
        with pytest.raises(InputError, match=rf"A model file ends in \.h5, which .*{name} does not"):
            detector.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_calibration_is_that_of_scoring_the_held_out_scans(detector, folder):
    """The embeddings of the fit are used again, in half precision: the same scores but for their rounding."""
    fitted = detector.fitted_
    settings = fitted.scorer.settings
    scans = unread_scans(find_scans(folder), settings)
    (held_out,) = split_subjects(scans, settings)[1]
    scored = fitted.scorer.score(held_out.read(), settings.slice_step)
    assert fitted.calibration.scan_scores == pytest.approx([scored.score], rel=1e-3)
    expected = np.quantile(scored.calibration_voxels, 0.99)
    assert fitted.calibration.threshold("fpr01") == pytest.approx(expected, rel=1e-3)


def test_every_picture_of_a_fit_is_embedded_once(folder, monkeypatch):
    counts = []
    embed = ClassicalBackbone.embed
    monkeypatch.setattr(
        ClassicalBackbone, "embed", lambda self, pixels: counts.append(len(pixels)) or embed(self, pixels)
    )
    fitted = AnomalyDetector(**FAST).fit(folder).fitted_
    scans = [unread.read() for unread in unread_scans(find_scans(folder), fitted.scorer.settings)]
    prepared = [fitted.scorer.preparation.of(scan, FAST["slice_step"]) for scan in scans]
    assert sum(counts) == sum(len(scan.chosen) for scan in prepared)


def test_black_patches_around_the_body_do_not_count(detector, lesion):
    """Scores of scan and slices are those of patches with body: by hand, patch by patch."""
    scored = detector.score_scan(lesion)
    scorer = detector.fitted_.scorer
    canvases = replace(scored.prepared, window=(-1, 900)).pictures()  # the body is nowhere black
    expected, all_scores = [], []
    for picture, scores in zip(canvases, scored.patch_maps, strict=True):
        pixels = scorer.embedder.backbone.prepare((picture > 0).astype(np.uint8) * 255)[0].numpy()
        body = pixels.reshape(12, 14, 12, 14).max(axis=(1, 3)) > pixels.min() + 0.5
        assert 0 < body.sum() < body.size
        expected.append(np.sort(scores[body])[-1])  # 1 % of at most 144 patches is one
        all_scores.extend(scores[body])
    np.testing.assert_allclose(scored.slice_scores, expected)
    count = len(all_scores) // 100
    assert scored.score == pytest.approx(np.sort(all_scores)[-count:].mean())


def test_the_model_file_says_what_it_is(detector, tmp_path):
    detector.save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        config = json.loads(file.attrs["config"])
        assert file["state/means"].shape == (16, 92)
    assert config["backbone"]["backbone"] == "classical"
    assert config["origin"]["scans"] == 4
    assert config["origin"]["held_out_scans"] == 1
    assert set(config["calibration"]["thresholds"]) == {"fpr10", "fpr05", "fpr01"}
    assert config["healthy"]["spacing"] == [[2.0, 2.0]] * 3


def test_memory_bank(folder, lesion, tmp_path):
    detector = AnomalyDetector(**{**FAST, "bank_size": 600}, method="memory_bank").fit(folder)
    bank = detector.fitted_.scorer.model.embeddings_
    assert 600 <= len(bank) < 700
    found = detector.anomaly_map(lesion)
    mask, inside = lesion_mask(), head(7) > 0
    assert found[mask].mean() > np.quantile(found[inside & ~mask], 0.9)
    detector.save(tmp_path / "bank.h5")
    np.testing.assert_allclose(AnomalyDetector.load(tmp_path / "bank.h5").anomaly_map(lesion), found, atol=2e-3)
    assert "Memory bank of patch embeddings, score `cosine`" in (tmp_path / "bank.card.md").read_text()


def test_images_as_arrays():
    images = [photo(seed) for seed in range(6)]
    detector = AnomalyDetector(**{**FAST, "window": None}).fit(images)
    spot = photo(9, spot=True)
    found = detector.anomaly_map(spot)
    assert found.shape == spot.shape
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert abs(row - 30) < 12
    assert abs(column - 60) < 12
    assert detector.score_samples([spot, photo(10)]).argmin() == 0
    with pytest.raises(InputError, match=r"shape \(8, 8\) and type float64 is no image: uint8"):
        detector.score_samples([np.zeros((8, 8))])


def test_the_card_is_honest(detector, tmp_path):
    detector.save(tmp_path / "m.h5")
    text = (tmp_path / "m.card.md").read_text()
    for part in (
        "Not a medical device",
        "it is no diagnosis",
        "fitted on: 4 (",
        "calibration: 1.",
        "With only 1 held-out scan these rates are rough",
        "volumes, grey, axial slices",
        "slices 2 to 2",
        "| fpr01 | 1% |",
    ):
        assert part in text
    assert "h0" not in text  # names of scans may be names of people


def unread(names):
    return [UnreadScan(name, lambda: None) for name in names]


def test_no_subject_is_on_both_sides():
    names = [f"p{subject}_{visit}" for subject in range(10) for visit in range(3)]
    settings = Settings(subject_pattern=r"^(?P<subject>p\d+)_", held_out=0.3)
    train, held_out = split_subjects(unread(names), settings)
    subjects = [{scan.name.split("_")[0] for scan in part} for part in (train, held_out)]
    assert len(subjects[1]) == 3
    assert not subjects[0] & subjects[1]
    assert len(train) + len(held_out) == 30
    with pytest.raises(InputError, match="All 2 healthy scans are of one subject: at least two are needed"):
        split_subjects(unread(["p1_a", "p1_b"]), settings)


def test_the_pinned_revision_is_that_of_the_catalog(root):
    entries = yaml.safe_load((root / "config/catalog.yaml").read_text())["embeddings"].values()
    catalog = {entry["backbone"]: entry["revision"] for entry in entries if "revision" in entry}
    assert {name: catalog[name] for name in PINNED_REVISIONS} == PINNED_REVISIONS
    assert Settings().pinned_revision == catalog[DEFAULT_BACKBONE]


def test_settings_have_one_default_each():
    """The detector's, the command line's and those of a model file."""
    fit = vars(_parser().parse_args(["fit", "healthy", "--out", "m.h5"]))
    for name, default in Settings().to_json().items():
        assert AnomalyDetector().get_params()[name] == default
        assert name == "false_positive_rate" or fit[name] == default


def test_names_of_scores_are_those_of_the_models():
    assert set(SCORES["mixture"]) == set(MIXTURE_SCORES)
    assert set(SCORES["memory_bank"]) == set(BANK_SCORES)
    assert all(default in SCORES[method] for method, default in DEFAULT_SCORES.items())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "forest"}, "Unknown method 'forest'"),
        ({"method": "memory_bank", "score": "mahalanobis"}, "Unknown score of the method memory_bank"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"held_out": 1.0}, "held_out is 1.0; it must lie between 0 and 1"),
        ({"min_foreground": -0.1}, "min_foreground is -0.1"),
        ({"window": (5, 5)}, "The window 5 5 must be a lower and a higher value"),
        ({"axis": "oblique"}, "Unknown axis 'oblique'"),
        ({"background": "black"}, "Unknown background 'black'"),
        ({"false_positive_rate": 1.5}, "false_positive_rate is 1.5"),
        ({"n_components": 1}, "n_components is 1; it must be at least 2"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"seed": 2**64}, "it must be at most 9223372036854775807"),
        ({"window": (0, float("inf"))}, "window is inf; it must be a finite number"),
        ({"background": float("nan")}, "background is nan; it must be a finite number"),
        ({"held_out": float("nan")}, "held_out is nan; it must lie between 0 and 1"),
        ({"device": "mps"}, "Unknown device 'mps': choose cpu, cuda, cuda:N or auto"),
        ({"backbone": "none/at-all"}, "The backbone none/at-all"),
    ],
)
def test_settings_that_are_not_allowed(folder, options, sentence, monkeypatch):
    """They are refused before a scan is read."""
    monkeypatch.setattr("dinodp.scans.detecting.detector.read_scan", lambda *_: pytest.fail("a scan was read"))
    with pytest.raises(InputError, match=sentence):
        AnomalyDetector(**{**FAST, **options}).fit(folder)


def test_scoring_before_fitting(lesion):
    with pytest.raises(InputError, match="not fitted yet: call fit or load first"):
        AnomalyDetector().predict([lesion])
