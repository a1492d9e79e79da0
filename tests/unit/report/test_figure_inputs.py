"""What figures are given is what the run's files hold."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_files import write_tokens
from PIL import Image

from dinodp import store
from dinodp.datasets.manifest import image_row, make_manifest, manifest_digest, read_manifest, select, write_manifest
from dinodp.evaluation.test_split import evaluate_scores
from dinodp.families import model_options
from dinodp.families.stages import fit_model, load_model, open_split, score_split
from dinodp.jobs.costs import write_cost
from dinodp.jobs.files import read_json
from dinodp.options.protocol import Protocol
from dinodp.report.figure_inputs import FigureFiles, _vectors, load_figure_data
from dinodp.report.figures import FIGURES

GRID, DIM = 4, 6
MIXTURE = {
    "family": "dpmm", "normalise": True, "covariance": "diag", "components": 6, "init": "spread", "epochs": 2,
    "images_per_batch": 2, "reg_covar": 1e-3, "scores": ["cosine", "log_likelihood"],
}  # fmt: skip
OURS = {
    "eb_mixture": {"family": "eb_mixture", "components": 6, "epochs": 3},
    "vmf": {"family": "vmf", "components": 6, "epochs": 3},
}
BANK = {"family": "memory_bank", "normalise": True, "scores": ["cosine"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[FigureFiles]]:
    """Tokens of three clusters, a mixture and a memory bank: fitted, scored, evaluated."""
    folder = tmp_path_factory.mktemp("run")
    rng, rows, made = np.random.default_rng(0), [], {}
    centres = rng.normal(size=(3, DIM))
    for split, labels in (("train", "nnnn"), ("valid", "nan"), ("test", "nnaa")):
        tokens = centres[rng.integers(0, 3, (len(labels), GRID, GRID))] + 0.1 * rng.normal(
            size=(len(labels), GRID, GRID, DIM)
        )
        for index, label in enumerate(labels):
            levels = np.zeros((16, 16), dtype=np.uint8)
            if label == "a":
                levels[4:12, 4:12] = 100
                levels[4:8, 4:8] = 255
                tokens[index, 1, 1] *= -3
            path, mask = (folder / f"{split}{index}{end}.png" for end in ("", "-mask"))
            Image.fromarray(levels).save(path)
            Image.fromarray(levels).save(mask)
            kind = "anomalous" if label == "a" else "normal"
            rows.append(image_row(split, kind, path, mask if label == "a" else None, f"{split}{index}"))
        made[split] = tokens
    manifest = make_manifest(rows)
    for split, tokens in made.items():
        write_tokens(folder / f"{split}.h5", tokens, manifest)
    write_manifest(manifest, folder / "manifest.csv")
    return folder, [model(folder, manifest, name, options) for name, options in (("bank", BANK), ("dpmm", MIXTURE))]


def files_of(folder, name):
    ends = (".h5", "-test.h5", "-valid.h5", ".json", "-curves.h5", ".fit.json", ".score.json")
    return FigureFiles(*(folder / f"{name}{end}" for end in ends))


def model(folder, manifest, name, entry):
    options = model_options(entry)
    readers = {
        split: open_split(folder / f"{split}.h5", options, None, manifest, split)
        for split in ("train", "valid", "test")
    }
    files = files_of(folder, name)
    cost = fit_model(files.fitted, options, readers["train"], readers["train"], seed=0, device="cpu")
    write_cost(files.fit_cost, cost)
    write_cost(files.score_cost, {"seconds": 0.5, "images": 4})
    fitted = load_model(files.fitted, options, readers["train"], device="cpu")
    for split, path in (("test", files.test), ("valid", files.valid)):
        made_from = {"manifest": manifest_digest(manifest), "model": store.digest_of(files.fitted)}
        score_split(fitted, readers[split], select(manifest, split), path, made_from=made_from)
    evaluate_scores(
        test_scores=files.test, valid_scores=files.valid, manifest=manifest, labels=options.labels(),
        protocol=Protocol(mask_rules=("gt0", "eq255"), resamples=0),
        metrics_path=files.metrics, curves_path=files.curves,
    )  # fmt: skip
    return files


def load(run, mask_rule="gt0"):
    folder, models = run
    return load_figure_data(
        title="made", names=["bank", "dpmm"], manifest_path=folder / "manifest.csv", tokens=folder / "test.h5",
        per_model=models, grid=None, mask_rule=mask_rule,
    )  # fmt: skip


def test_scores_thresholds_and_curves_are_those_of_the_files(run):
    data = load(run, "eq255")
    assert data.mask_rule == "eq255"
    assert len(data.manifest) == 4
    for item, files in zip(data.models, run[1], strict=True):
        values = read_json(files.metrics)["metrics"][item.primary_score]["eq255"]
        assert item.thresholds["cosine"] == {
            name: values[name] for name in ("threshold_fpr10", "threshold_fpr05", "threshold_fpr01")
        }
        assert (item.scores["cosine"] == store.read_maps(files.test)["cosine"]).all()
        assert len(item.normal_validation["cosine"]) == 2  # of three, one is anomalous
        assert item.image_scores["cosine"].shape == (4,)
        np.testing.assert_array_equal(
            item.curves["cosine"]["tpr"], store.read_curves(files.curves, "cosine", "eq255")["tpr"]
        )
    assert load(run).models[0].curves["cosine"]["precision"][-1] > data.models[0].curves["cosine"]["precision"][-1]


def test_only_a_mixture_has_components(run):
    bank, mixture = load(run).models
    assert bank.family == "memory_bank"
    assert bank.history is bank.means is bank.assignments is None
    assert list(mixture.scores) == ["cosine", "log_likelihood"]
    count = len(mixture.means)
    assert mixture.covariances_diag.shape == (count, DIM)
    assert mixture.weights.shape == (count,)
    chosen = mixture.assignments([0, 2])
    assert chosen.shape == (2, GRID, GRID)
    assert 0 <= chosen.min() <= chosen.max() < count
    likelihoods = mixture.history["validation_log_likelihood"]
    assert mixture.chosen_epoch == mixture.history["epoch"][likelihoods.argmax()]


def test_tokens_are_as_the_mixture_sees_them(run):
    tokens = load(run).read_tokens([1])
    assert tokens.shape == (1, GRID, GRID, DIM)
    torch.testing.assert_close(torch.tensor(tokens).norm(dim=-1), torch.ones(1, GRID, GRID))


def test_without_a_mixture_tokens_are_of_unit_length_too(run):
    folder, models = run
    data = load_figure_data(
        title="made", names=["bank"], manifest_path=folder / "manifest.csv", tokens=folder / "test.h5",
        per_model=models[:1], grid=None, mask_rule="gt0",
    )  # fmt: skip
    assert np.linalg.norm(data.read_tokens([0]), axis=-1) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("covariance", ["full", "spherical"])
def test_components_of_every_covariance_type_have_a_diagonal(run, covariance):
    folder = run[0]
    entry = {**MIXTURE, "covariance": covariance}
    files = model(folder, read_manifest(folder / "manifest.csv"), covariance, entry)
    (found,) = load_figure_data(
        title="made", names=["dpmm"], manifest_path=folder / "manifest.csv", tokens=folder / "test.h5",
        per_model=[files], grid=None, mask_rule="gt0",
    ).models  # fmt: skip
    assert found.covariances_diag.shape == found.means.shape
    assert (found.covariances_diag > 0).all()


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_every_figure_draws_them(run, name):
    assert FIGURES[name](load(run)).axes


def test_costs_are_those_of_the_jobs(run):
    bank, mixture = load(run).models
    assert bank.vectors == 4 * GRID * GRID  # remembered of the training images
    assert mixture.vectors == len(mixture.means)
    assert bank.scoring_ms == mixture.scoring_ms == 125
    assert bank.model_mib == pytest.approx(4 * GRID * GRID * DIM * 4 / 2**20)
    assert mixture.model_mib > 0
    assert bank.metrics["cosine"]["pixel_average_precision"] > 0


@pytest.mark.parametrize("family", OURS)
@pytest.mark.parametrize("name", sorted(FIGURES))
def test_every_figure_draws_the_projects_own_mixture_and_its_rival(run, family, name):
    folder = run[0]
    files = files_of(folder, family)
    if not files.fitted.exists():
        model(folder, read_manifest(folder / "manifest.csv"), family, OURS[family])
    data = load_figure_data(
        title="made", names=[family], manifest_path=folder / "manifest.csv", tokens=folder / "test.h5",
        per_model=[files], grid=None, mask_rule="gt0",
    )  # fmt: skip
    assert FIGURES[name](data).axes
    (found,) = data.models
    assert found.covariances_diag.shape == found.means.shape
    assert found.assignments([0]).max() < len(found.means)
    assert (np.diff(found.history["bound"]) > -1e-3).all()
    assert found.chosen_epoch is None


def test_vectors_are_counted_where_their_size_does_not_say_them():
    """Of an index a MiB is many more of them than of a bank."""
    cost = {"active_components": None, "model_mib": 1.0}
    assert _vectors({**cost, "vectors": 70_000}, 64) == 70_000
    assert _vectors(cost, 64) == 4096
    assert _vectors({**cost, "active_components": 9}, 64) == 9
