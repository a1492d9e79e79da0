"""Fit, save, load and score with the conventions of scikit-learn."""

import importlib.util
import json
from dataclasses import asdict, replace

import h5py
import numpy as np
import pytest
import yaml
from scan_phantoms import (
    AFFINE,
    FAST,
    MIXTURE,
    ORIENTATIONS,
    head,
    healthy_folder,
    lesion_mask,
    oblique,
    photo,
    reoriented,
    resign,
    save,
)
from sklearn.base import clone

from dinodp.backbones.classical_descriptor import ClassicalBackbone
from dinodp.cli import _parser
from dinodp.commands.fit import method_of
from dinodp.errors import InputError
from dinodp.families.memory_bank import OWN_SCANS_EMBEDDINGS
from dinodp.families.stages import fit_state
from dinodp.scans import AnomalyDetector
from dinodp.scans.detecting.fitting import UnreadScan, split_subjects, unread_scans
from dinodp.scans.detecting.method import METHODS, own_model
from dinodp.scans.detecting.settings import DEFAULT_BACKBONE, PINNED_REVISIONS, Settings
from dinodp.scans.reading.folder import ReadingOptions, find_scans


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
    methods = [detector.get_params().pop("method") for detector in (loaded, strict)]
    assert methods[0] == own_model(methods[1], None).plain()  # all options, whatever the defaults of later versions
    assert {**loaded.get_params(), "method": methods[1]} == strict.get_params()
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
    resign(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"a.h5 is damaged, or another version .* \(.*\): fit again"):
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
    method = {"family": "memory_bank", "max_embeddings": 600}
    detector = AnomalyDetector(**{**FAST, "method": method}).fit(folder)
    bank = detector.fitted_.scorer.model.bank.embeddings_
    assert 600 <= len(bank) < 700
    found = detector.anomaly_map(lesion)
    mask, inside = lesion_mask(), head(7) > 0
    assert found[mask].mean() > np.quantile(found[inside & ~mask], 0.9)
    detector.save(tmp_path / "bank.h5")
    np.testing.assert_array_equal(AnomalyDetector.load(tmp_path / "bank.h5").anomaly_map(lesion), found)
    assert "family `memory_bank`, score `cosine`" in (tmp_path / "bank.card.md").read_text()


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
    with pytest.raises(InputError, match=r"shape \(8, 8\) and type float64 is no image: those are uint8"):
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
    return [UnreadScan(name, lambda _: None, lambda: None, ReadingOptions()) for name in names]


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
    for name, default in asdict(Settings()).items():
        assert AnomalyDetector().get_params()[name] == default
        assert name == "false_positive_rate" or fit[name] == default


def test_options_of_a_method_on_the_command_line():
    assert method_of("dpmm") == "dpmm"
    assert method_of("k_means", "components=20", "normalise=false", "reg_covar=1.0e-3") == {
        "family": "k_means", "components": 20, "normalise": False, "reg_covar": 1e-3,
    }  # fmt: skip
    assert method_of("dpmm_k100", "epochs=3")["components"] == 100
    with pytest.raises(InputError, match="--method dpmm: 'components' is no option of the form KEY=VALUE"):
        method_of("dpmm", "components")


def test_a_method_is_a_family_or_a_model_of_the_catalog(root):
    assert own_model("dpmm", None).scores == ("cosine",)
    assert own_model("eb_mixture", None).scores == ("calibrated_distance",)
    assert own_model("k_means", None).scores == ("cosine",)
    assert own_model("dpmm_diag", None).scores == ("cosine",)  # the first of its entry
    assert own_model("dpmm_diag", "mahalanobis").scores == ("mahalanobis",)
    assert own_model("memory_bank", None).max_embeddings == OWN_SCANS_EMBEDDINGS
    assert own_model("patchcore", None).max_embeddings == OWN_SCANS_EMBEDDINGS
    assert own_model("retrieval_bank", None).max_images == 100
    assert own_model("memory_bank_coreset", None).max_embeddings is None
    for name, entry in yaml.safe_load((root / "config/catalog.yaml").read_text())["models"].items():
        if entry["family"] in METHODS:
            model = own_model(name, None)
            assert own_model(model.plain(), None) == model


def test_a_method_that_is_neither_family_nor_model_of_the_catalog():
    with pytest.raises(InputError, match="Unknown method 'dpmm_dag': choose a family, bayesian_mixture, dpmm"):
        own_model("dpmm_dag", None)


METHODS_TO_TRY = [
    {"family": "eb_mixture", "components": 12, "epochs": 2},
    {"family": "vmf", "components": 12, "epochs": 2},
    {"family": "memory_bank", "shots": 5, "background": "leave_out"},
    {"family": "gaussian", "reg_covar": 1e-3},
    {"family": "pca_residual"},
    {"family": "padim", "random_dims": 20, "background": "leave_out"},
    {"family": "retrieval_bank", "images": 8, "background": "leave_out"},
    {"family": "patchcore", "coreset_fraction": 0.1, "max_embeddings": 2000, "background": "leave_out"},
    {"family": "k_means", "components": 12, "epochs": 2},
    {"family": "gaussian_mixture", "components": 12, "epochs": 2},
    {"family": "bayesian_mixture", "components": 6, "epochs": 3, "max_embeddings": 800, "reg_covar": 1e-3},
    {"family": "memory_bank", "shots": 5},
    {"family": "memory_bank", "coreset_fraction": 0.02, "max_embeddings": 2000},
    pytest.param(
        {"family": "memory_bank", "search": "ivfpq", "lists": 8},
        marks=pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed"),
    ),
    {"family": "dpmm", "components": 12, "epochs": 2, "covariance": "spherical", "pca_dims": 20},
    {"family": "dpmm", "components": 12, "epochs": 2, "position": "appended", "normalise": False},
]


@pytest.mark.parametrize("method", METHODS_TO_TRY, ids=lambda method: "-".join(map(str, method.values())))
def test_every_family_finds_the_lesion_and_is_stored_whole(method, folder, lesion, tmp_path):
    detector = AnomalyDetector(**{**FAST, "slice_step": 4, "method": method}).fit(folder)
    found = detector.anomaly_map(lesion)
    mask, inside = lesion_mask(), head(7) > 0
    assert found[mask].mean() > np.quantile(found[inside & ~mask], 0.75)
    detector.save(tmp_path / "m.h5")
    np.testing.assert_array_equal(AnomalyDetector.load(tmp_path / "m.h5").anomaly_map(lesion), found)


@pytest.mark.parametrize(("family", "chooses"), [("eb_mixture", False), ("vmf", False), ("dpmm", True)])
def test_scans_that_calibrate_choose_nothing_where_the_fit_can_hold_out(family, chooses, folder, monkeypatch):
    fitted_on = []

    def watched(options, train, valid, **rest):
        fitted_on.append((set(train.subjects), valid.n_images))
        return fit_state(options, train, valid, **rest)

    monkeypatch.setattr("dinodp.scans.detecting.fitting.fit_state", watched)
    method = {"family": family, "components": 6, "epochs": 1}
    fitted = AnomalyDetector(**{**FAST, "slice_step": 4, "method": method}).fit(folder).fitted_
    (subjects, n_chosen_by) = fitted_on[0]
    assert len(subjects) == fitted.origin.scans
    assert (n_chosen_by > 0) == chooses


def test_places_are_compared_in_pictures_of_one_size_only():
    images = [photo(seed, size=(80, 112 + 20 * (seed % 2))) for seed in range(6)]
    plain = {**FAST, "window": None}
    with pytest.raises(InputError, match="position needs pictures of one size, but the healthy images have several"):
        AnomalyDetector(**{**plain, "method": {**MIXTURE, "position": "added"}}).fit(images)
    found = AnomalyDetector(**{**plain, "method": {"family": "memory_bank", "max_embeddings": 50}}).fit(images)
    assert len(found.fitted_.scorer.model.bank.embeddings_) == 5 * 10  # equally many of each picture


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "forest"}, "Unknown method 'forest': choose a family, bayesian_mixture, dpmm, .* or a model of"),
        ({"method": {"family": "forest"}}, r"method.family: 'forest' is not known; choose one of"),
        ({"method": {"family": "control"}}, "The family 'control' is for the benchmark alone; it is no model of"),
        ({"method": "memory_bank", "score": "mahalanobis"}, "memory_bank has no score 'mahalanobis'; choose one of"),
        ({"method": {"family": "dpmm", "epochs": 0}}, "method.epochs: 0 is below the least allowed, 1"),
        ({"method": {"family": "dpmm", "components": 1}}, "method.components: 1 is below the least allowed, 2"),
        ({"method": {"family": "memory_bank", "epochs": 7}}, "unknown key 'epochs' for the family 'memory_bank'"),
        ({"held_out": 1.0}, "held_out is 1.0; it must lie between 0 and 1"),
        ({"min_foreground": -0.1}, "min_foreground is -0.1"),
        ({"window": (5, 5)}, "The window 5 5 must be a lower and a higher value"),
        ({"axis": "oblique"}, "Unknown axis 'oblique'"),
        ({"background": "black"}, "Unknown background 'black'"),
        ({"false_positive_rate": 1.5}, "false_positive_rate is 1.5"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"seed": 2**64}, "it must be at most 9223372036854775807"),
        ({"window": (0, float("inf"))}, "window is inf; it must be a finite number"),
        ({"background": float("nan")}, "background is nan; it must be a finite number"),
        ({"held_out": float("nan")}, "held_out is nan; it must lie between 0 and 1"),
        ({"device": "tpu"}, "Unknown device 'tpu': choose auto, cpu, cuda, mps or xpu"),
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
