"""Models, scores and metrics of another run under the right name are refused, by name."""

import shutil

import numpy as np
import pandas as pd
import pytest
from made_files import flip, write_csv, write_scores, write_tokens
from PIL import Image

from dinodp import store
from dinodp.cli import main
from dinodp.configuration.asked import PLACES
from dinodp.datasets.manifest import image_row, make_manifest, read_manifest, write_manifest
from dinodp.errors import InputError
from dinodp.evaluation.collecting import read_evaluations
from dinodp.evaluation.test_split import evaluate_scores, require_scores_of, scores_made_from
from dinodp.families import model_options
from dinodp.families.stages import fit_model, load_model, open_split
from dinodp.jobs.asked import ask
from dinodp.jobs.origin import read_table
from dinodp.options import places
from dinodp.options.protocol import Protocol

OPTIONS = {"family": "dpmm", "components": 2, "reg_covar": 1e-3, "epochs": 2, "images_per_batch": 2}


def run(folder, seed):
    """Manifest and embeddings; images differ by the seed."""
    generator, rows = np.random.default_rng(seed), []
    folder.mkdir(parents=True)
    for split, label, count in (("train", "normal", 4), ("valid", "normal", 2), ("test", "anomalous", 2)):
        for index in range(count):
            path = folder / f"{split}{index}.png"
            top = 2 if label == "anomalous" else 255  # an anomalous image is its own mask
            Image.fromarray(generator.integers(0, top, (16, 16), dtype=np.uint8)).save(path)
            rows.append(image_row(split, label, path, path if label == "anomalous" else None, f"s{index}"))
    place = folder / "results/data/d/manifest.csv"
    write_manifest(make_manifest(rows), place)
    manifest = read_manifest(place)
    for split, count in (("train", 4), ("valid", 2), ("test", 2)):
        path = folder / f"results/embeddings/d/e/{split}.h5"
        write_tokens(path, generator.normal(size=(count, 4, 4, 5)), manifest)
    return folder, manifest


def opened(run, split, manifest=None):
    folder, own = run
    own = own if manifest is None else manifest
    return open_split(folder / f"results/embeddings/d/e/{split}.h5", model_options(OPTIONS), None, own, split)


def test_files_of_another_run_are_refused(tmp_path):
    first, other = run(tmp_path / "a", 0), run(tmp_path / "b", 1)
    with pytest.raises(InputError, match=r"train\.h5 was not made from this manifest: it is of another run"):
        opened(first, "train", other[1])
    options, model = model_options(OPTIONS), first[0] / "results/models/d/e/m/seed-0.h5"
    train = opened(first, "train")
    fit_model(model, options, train, opened(first, "valid"), seed=0, device="cpu")
    load_model(model, options, train, device="cpu", seed=0)
    with pytest.raises(InputError, match=r"seed-0\.h5 was not made from .*b/results/embeddings/d/e/train\.h5"):
        load_model(model, options, opened(other, "train"), device="cpu")
    with pytest.raises(InputError, match=r"seed-0\.h5 was fitted with another seed than is asked for"):
        load_model(model, options, train, device="cpu", seed=1)
    with pytest.raises(InputError, match="was fitted with another step_rate than is asked for"):
        load_model(model, model_options({**OPTIONS, "step_rate": 0.9}), train, device="cpu")
    assert main(["verify", str(first[0])]) == 0
    (first[0] / "results/embeddings/d/e/train.h5").write_bytes(
        (other[0] / "results/embeddings/d/e/train.h5").read_bytes()
    )
    assert main(["verify", str(first[0])]) == 1


def test_scores_and_metrics_must_be_of_one_job(tmp_path):
    _, manifest = run(tmp_path / "a", 0)
    maps = np.random.default_rng(0).random((2, 4, 4)).astype(np.float32)
    files = {split: write_scores(tmp_path / f"{split}.h5", {"cosine": maps}, manifest) for split in ("test", "valid")}
    labels = {"dataset": "d", "embedding": "e", "model": "m", "seed": "0", "options": {"scores": ["cosine"]}}

    def evaluate(name, frame: pd.DataFrame = manifest):
        paths = tmp_path / f"{name}.json", tmp_path / f"{name}-curves.h5"
        evaluate_scores(
            test_scores=files["test"], valid_scores=files["valid"], manifest=frame, labels=labels,
            protocol=Protocol(resamples=0), metrics_path=paths[0], curves_path=paths[1],
        )  # fmt: skip
        return paths

    first = evaluate("first")
    assert len(read_evaluations([first[0]], [first[1]])) == 1
    with pytest.raises(InputError, match=r"test\.h5 was not made from .*train\.h5"):
        require_scores_of(tmp_path / "a/results/embeddings/d/e/train.h5", files["test"])
    write_scores(files["test"], {"cosine": maps + 1}, manifest, model="1")
    with pytest.raises(InputError, match="are of different models"):
        evaluate("mixed")
    write_scores(files["test"], {"cosine": np.concatenate([maps, maps])}, manifest)
    with pytest.raises(InputError, match=r"test\.h5 scores 4 images, the test split has 2"):
        evaluate("more")
    write_scores(files["test"], {"cosine": maps + 1}, manifest)
    second = evaluate("second")
    with pytest.raises(InputError, match="were not made from the same scores"):
        read_evaluations([first[0]], [second[1]])
    Image.new("L", (16, 16)).save(manifest["mask"].iloc[-1])
    with pytest.raises(InputError, match=r"test1\.png was changed after the manifest was made"):
        evaluate("masks")


LEVELS = ("dataset", "embedding", "grid", "model", "scores", "evaluation", "run")
NAMES = {"dataset": "d", "embedding": "e", "grid": "e", "model": "m", "scores": "m", "evaluation": "", "run": ""}


def asked_for(other=""):
    """What a configuration asks for; ``other``: the level in which it is another one."""
    return {"places": PLACES, "levels": {level: {NAMES[level]: f"1{level == other}"} for level in LEVELS}}


@pytest.fixture
def finished(tmp_path):
    """A run whose files fit together, each made for the first configuration."""
    ask(asked_for())
    folder, manifest = run(tmp_path / "a", 0)
    at = {split: folder / f"results/embeddings/d/e/{split}.h5" for split in ("train", "valid", "test")}
    names = {"dataset": "d", "embedding": "e", "model": "m", "seed": "0"}
    model, metrics, curves = (
        folder / places.fill(pattern, **names) for pattern in (places.MODEL, places.METRICS, places.CURVES)
    )
    options = model_options(OPTIONS)
    train, valid = (opened((folder, manifest), split) for split in ("train", "valid"))
    fit_model(model, options, train, valid, seed=0, device="cpu")
    maps = np.random.default_rng(0).random((2, 4, 4)).astype(np.float32)
    scores = {
        split: write_scores(folder / places.fill(places.SCORES, split=split, **names), {"cosine": maps}, manifest)
        for split in ("test", "valid")
    }
    evaluate_scores(
        test_scores=scores["test"], valid_scores=scores["valid"], manifest=manifest,
        labels={**names, "options": {"scores": ["cosine"]}}, protocol=Protocol(resamples=0),
        metrics_path=metrics, curves_path=curves,
    )  # fmt: skip
    table = folder / places.METRICS_TABLE
    write_csv(pd.DataFrame({"a": [1]}), table)
    steps = {
        "manifest": lambda: read_manifest(folder / "results/data/d/manifest.csv"),
        "embeddings": lambda: [opened((folder, manifest), split) for split in at],
        "model": lambda: load_model(model, options, train, device="cpu", seed=0),
        "scores": lambda: scores_made_from(manifest, scores["test"], scores["valid"]),
        "metrics": lambda: read_evaluations([metrics], [curves]),
        "table": lambda: read_table(table),
    }
    yield folder, steps
    ask({})


STEPS = ("manifest", "embeddings", "model", "scores", "metrics", "table")
REFUSED = {  # the level in which another run differs: the steps that refuse its files
    "": (),
    "dataset": STEPS[:5],
    "embedding": STEPS[1:5],
    "grid": STEPS[2:5],
    "model": STEPS[2:5],
    "scores": STEPS[3:5],
    "evaluation": STEPS[4:5],
    "run": STEPS[5:],
}


@pytest.mark.parametrize("level", REFUSED)
def test_a_whole_set_of_another_run_that_fits_together_is_refused(finished, level):
    _, steps = finished
    ask(asked_for(level))
    for name, step in steps.items():
        if name in REFUSED[level]:
            with pytest.raises(InputError, match=rf"was made for another {level} than the configuration asks for here"):
                step()
        else:
            step()


def test_verify_finds_what_lies_under_the_name_of_another(finished, capsys):
    folder, _ = finished
    ask({})
    shutil.rmtree(folder / "results/scores")  # they name no model that there is
    assert main(["verify", str(folder)]) == 0
    place = folder / "results/models/d/e"
    (place / "m").rename(place / "other")
    assert main(["verify", str(folder)]) == 1
    assert "seed-0.h5 was made for the model m: it lies in another place" in capsys.readouterr().err


def test_verify_reads_every_image_of_embeddings(finished, capsys):
    folder, _ = finished
    ask({})
    path = folder / "results/embeddings/d/e/train.h5"
    assert main(["verify", str(path)]) == 0
    images = store.Head.read(path)
    assert images.stop > images.start  # the digest of the file leaves them out
    flip(path, images.stop - 1)
    assert main(["verify", str(path)]) == 1
    assert "train.h5" in capsys.readouterr().err


def test_verify_says_whose_code_made_the_files(finished, capsys, monkeypatch):
    folder, _ = finished
    ask({})
    path = folder / "results/models/d/e/m/seed-0.h5"
    assert main(["verify", str(path)]) == 0
    assert "HDF5 files were made by this version's code." in capsys.readouterr().out
    monkeypatch.setattr("dinodp.evaluation.verifying.code_digest", lambda module: "another")
    assert main(["verify", str(path)]) == 0
    assert "HDF5 files were made by another version's code." in capsys.readouterr().out
