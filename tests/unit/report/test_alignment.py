"""Alignment: hand-made components that follow place, intensity or nothing; and the analysis of a small run's files."""

import h5py
import numpy as np
import pandas as pd
import pytest
from made_files import write_tokens
from PIL import Image
from scipy import stats

from dinodp.datasets.manifest import image_row, make_manifest
from dinodp.errors import InputError
from dinodp.families import model_options
from dinodp.families.stages import fit_model, open_split
from dinodp.report.alignment.analysing import align
from dinodp.report.alignment.measures import (
    PatchLabels,
    consistency,
    explained_share,
    intensity_classes,
    jackknife_interval,
    label_measures,
    matching_pairs,
    measure,
    place_cells,
    quantile_bins,
)

SHAPE = (12, 16, 16)


def labels(components, intensity=None, levels=0.5):
    """Twelve images of six subjects, all tissue, all at one level."""
    generator = np.random.default_rng(0)
    return PatchLabels(
        components=np.broadcast_to(components, SHAPE).astype(np.int64),
        intensity=generator.random(SHAPE) if intensity is None else intensity,
        tissue=np.ones(SHAPE, dtype=bool),
        subjects=np.arange(SHAPE[0]) // 2,
        levels=np.full(SHAPE[0], levels),
    )


def test_components_that_are_places():
    found = label_measures(labels(place_cells(SHAPE)))
    assert found["explained by place"] == pytest.approx(1, abs=1e-9)
    assert found["explained by both"] == pytest.approx(1, abs=1e-9)
    assert abs(found["explained by intensity"]) < 0.01
    assert abs(found["agreement with intensity classes"]) < 0.01


def test_components_that_are_intensities():
    intensity = np.random.default_rng(1).random(SHAPE)
    data = labels(quantile_bins(intensity.ravel(), 8).reshape(SHAPE), intensity)
    found = label_measures(data)
    assert found["explained by intensity"] == pytest.approx(1, abs=1e-9)
    assert abs(found["explained by place"]) < 0.02
    three = labels(intensity_classes(intensity.ravel()).reshape(SHAPE), intensity)
    assert label_measures(three)["agreement with intensity classes"] == pytest.approx(1)


def test_random_components_follow_nothing_though_there_are_many():
    """Without the correction for chance, 512 labels would explain a good share of 30 components."""
    data = labels(np.random.default_rng(2).integers(0, 30, SHAPE))
    assert max(abs(value) for value in label_measures(data).values()) < 0.03
    kappa = consistency(data, data)
    assert abs(kappa) < 0.02


def test_half_of_what_can_be_explained():
    """Two independent fair bits each, one of them shared."""
    bits = np.random.default_rng(3).integers(0, 2, (3, 40_000))
    share = explained_share(2 * bits[0] + bits[1], 2 * bits[0] + bits[2])
    assert share == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("parts", [1, 4, 12])
def test_the_best_is_one_however_many_components_there_are(parts):
    """Components that split every class of intensity into ``parts``: no components can follow intensity better."""
    generator = np.random.default_rng(4)
    intensity = generator.random(SHAPE)
    split = generator.integers(0, parts, SHAPE)
    bins = quantile_bins(intensity.ravel(), 8).reshape(SHAPE)
    classes = intensity_classes(intensity.ravel()).reshape(SHAPE)
    assert label_measures(labels(bins * parts + split, intensity))["explained by intensity"] == pytest.approx(1)
    found = label_measures(labels(classes * parts + split, intensity))
    assert found["agreement with intensity classes"] == pytest.approx(1)


def test_one_component_has_nothing_to_explain():
    assert explained_share(np.zeros(10, dtype=int), np.arange(10)) == 0


def test_jackknife_of_a_mean_is_its_t_interval():
    x = np.random.default_rng(5).normal(size=12)
    low, high = jackknife_interval(x.mean(), (x.sum() - x) / 11)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 11, x.mean(), stats.sem(x)))
    assert np.isnan(jackknife_interval(1.0, np.ones(1))).all()
    assert np.isnan(jackknife_interval(1.0, np.ones(2))).all()


def test_consistency_is_kappa_by_hand():
    """Two subjects, four patches: 3 of 4 agree; shares 1/2, 1/2 and 1/4, 3/4 give 1/2 by chance, so kappa is 1/2."""
    maps = np.array([[[0, 0, 1, 1]], [[0, 1, 1, 1]]])
    pair = PatchLabels(maps, np.zeros((2, 1, 4)), np.ones((2, 1, 4), bool), np.array([0, 1]), np.array([0.4, 0.45]))
    kappa = consistency(pair, pair)
    assert kappa == pytest.approx(0.5)


def test_components_that_all_subjects_share():
    assert consistency(labels(place_cells(SHAPE)), labels(place_cells(SHAPE))) == pytest.approx(1)


def test_pairs_are_of_other_subjects_at_the_same_level():
    data = labels(0)
    object.__setattr__(data, "levels", np.array([0.05, 0.95] * 6))
    pairs = matching_pairs(data, data, 0)
    assert len(pairs) == 2 * 6 * 5
    assert all(data.levels[a] == data.levels[b] and data.subjects[a] != data.subjects[b] for a, b in pairs)


def test_without_levels_there_is_no_consistency():
    data = labels(place_cells(SHAPE), levels=np.nan)
    assert consistency(data, data) is None
    assert "consistency between subjects" not in {row["measure"] for row in measure(data, None)}


def test_intervals_hold_the_value_and_shrink_with_subjects():
    """Half of the subjects follow place, the others do not: which are drawn decides the share."""
    components = np.where(np.arange(12)[:, None, None] < 6, place_cells(SHAPE), 0)
    rows = {row["measure"]: row for row in measure(labels(components), None)}
    row = rows["explained by place"]
    assert 0.2 < row["value"] < 0.9
    assert row["low"] < row["value"] < row["high"]
    assert row["n_subjects"] == 6


@pytest.fixture
def run(tmp_path):
    """A small run: images whose left half is dark and right half bright, embeddings that tell the halves apart."""
    rows, generator = [], np.random.default_rng(0)
    for split, label, count in (
        ("train", "normal", 4),
        ("valid", "normal", 2),
        ("test", "normal", 4),
        ("test", "anomalous", 2),
    ):
        for index in range(count):
            path = tmp_path / f"{split}-{label}-{index}.png"
            image = np.full((32, 32), 60, dtype=np.uint8)
            image[:, 16:] = 180
            image[:4] = 0  # background
            Image.fromarray(image).save(path)
            mask = np.zeros((32, 32), dtype=np.uint8)
            mask[12:20, 4:12] = 255 * (label == "anomalous")
            Image.fromarray(mask).save(path.with_suffix(".mask.png"))
            rows.append(image_row(split, label, path, path.with_suffix(".mask.png"), f"{label}{index // 2}", index % 2))
    manifest = make_manifest(rows)
    for split in ("train", "valid", "test"):
        count = int((manifest["split"] == split).sum())
        tokens = generator.normal(0, 0.05, (count, 8, 8, 4))
        tokens[..., :4, 0] += 1
        tokens[..., 4:, 1] += 1
        write_tokens(tmp_path / f"{split}.h5", tokens, manifest)
    return tmp_path, manifest


def fitted(run, name, entry):
    options = model_options(entry)
    folder, manifest = run
    train, valid = (open_split(folder / f"{split}.h5", options, None, manifest, split) for split in ("train", "valid"))
    path = folder / f"{name}.h5"
    fit_model(path, options, train, valid, seed=0, device="cpu")
    return path


OPTIONS = {
    "family": "dpmm",
    "components": 2,
    "reg_covar": 1e-3,
    "epochs": 5,
    "images_per_batch": 2,
    "scores": ["cosine"],
}


def analyse(run, models):
    folder, manifest = run
    align(
        manifest=manifest,
        tokens=folder / "test.h5",
        models=list(models.values()),
        names=list(models),
        place={"dataset": "halves", "embedding": "made"},
        grid=None,
        mask_rule="gt0",
        table=folder / "a.csv",
        png=folder / "a.png",
        pdf=folder / "a.pdf",
    )
    return pd.read_csv(folder / "a.csv")


def test_analysis_of_files(run):
    models = {"dpmm": fitted(run, "dpmm", OPTIONS), "dpmm_pca": fitted(run, "pca", {**OPTIONS, "pca_dims": 2})}
    frame = analyse(run, models)
    assert set(frame["model"]) == {"dpmm", "dpmm_pca"}
    assert set(frame["images"]) == {"normal", "anomalous, outside lesions"}
    found = frame.set_index(["model", "images", "measure"])["value"]
    for model in models:
        assert found[model, "normal", "explained by place"] > 0.99
        assert found[model, "anomalous, outside lesions", "explained by intensity"] > 0.99
        assert found[model, "normal", "consistency between subjects"] == pytest.approx(1)
    counts = frame.set_index("images")[["n_images", "n_subjects"]].drop_duplicates()
    assert counts.loc["normal"].tolist() == [4, 2]
    assert (run[0] / "a.png").stat().st_size > 10_000
    assert (run[0] / "a.pdf").is_file()


def test_only_mixtures_have_components(run):
    bank = fitted(run, "bank", {"family": "memory_bank", "scores": ["cosine"]})
    with pytest.raises(InputError, match="is no mixture; choose models of bayesian_mixture, dpmm"):
        analyse(run, {"bank": bank})


def of_manifest(run, manifest):
    """The run again, with another manifest of its images."""
    folder, _ = run
    for split in ("train", "valid", "test"):
        with h5py.File(folder / f"{split}.h5") as file:
            tokens = file["tokens"][: int((manifest["split"] == split).sum())]
        (folder / f"{split}.h5").unlink()
        write_tokens(folder / f"{split}.h5", tokens, manifest)
    return folder, manifest


def test_without_normal_test_images_the_sentence_stands_in_the_figure(run):
    made = of_manifest(run, run[1].assign(label=run[1]["label"].where(run[1]["split"] != "test", "anomalous")))
    frame = analyse(made, {"dpmm": fitted(made, "dpmm", OPTIONS)})
    assert frame.empty
    assert (run[0] / "a.png").stat().st_size > 1000


def test_anomalous_images_without_masks_are_left_out(run):
    made = of_manifest(run, run[1].assign(mask="", mask_sha256=""))
    assert set(analyse(made, {"dpmm": fitted(made, "dpmm", OPTIONS)})["images"]) == {"normal"}
