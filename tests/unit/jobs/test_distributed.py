"""A mixture fitted by two real processes, started by torchrun, against one process."""

import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_files import write_csv, write_tokens

from dinodp import store
from dinodp.datasets.manifest import read_manifest
from dinodp.errors import InputError
from dinodp.families.fit_job import FitJob
from dinodp.jobs.files import read_json

OPTIONS = {
    "family": "dpmm",
    "components": 12,
    "epochs": 3,
    "images_per_batch": 4,
    "init": "spread",
    "scores": ["cosine"],
}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Embeddings of 9 and 3 images, so that of the last mini-batch (1 image) one of two processes has nothing."""
    folder = tmp_path_factory.mktemp("fit")
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(5, 16))
    rows, made = [], {}
    for split, count in (("train", 9), ("valid", 3)):
        which = generator.integers(5, size=(count, 8, 8))
        made[split] = centres[which] + 0.3 * generator.normal(size=(count, 8, 8, 16))
        rows += [(split, "normal", f"{split}{index}.png") for index in range(count)]
    rows.append(("test", "normal", "test.png"))
    manifest = pd.DataFrame(rows, columns=["split", "label", "image"])
    for column, value in {"mask": "", "subject": "", "slice": "", "height": 8, "width": 8, "image_sha256": "0"}.items():
        manifest[column] = value
    manifest["mask_sha256"] = ""
    write_csv(manifest, folder / "manifest.csv")
    for split, tokens in made.items():
        write_tokens(folder / f"{split}.h5", tokens, read_manifest(folder / "manifest.csv"))
    return FitJob(
        manifest=str(folder / "manifest.csv"),
        train=str(folder / "train.h5"),
        valid=str(folder / "valid.h5"),
        model=str(folder / "model.h5"),
        cost=str(folder / "model.cost.json"),
        options=OPTIONS,
        grid=None,
        seed=0,
        device="cpu",
        threads=1,
    )


@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_two_processes_equal_one_up_to_rounding(job, tmp_path, covariance):
    fitted = []
    for processes in (1, 2):
        model, cost = tmp_path / f"{processes}.h5", tmp_path / f"{processes}.json"
        options = {**OPTIONS, "covariance": covariance, "reg_covar": 1e-3}
        replace(job, model=str(model), cost=str(cost), options=options).run(processes)
        assert read_json(cost)["active_components"] > 1
        fitted.append(store.read_state(model))
    (config, state, history), (other_config, other_state, other_history) = fitted
    assert config == other_config
    for name, values in state.items():
        np.testing.assert_allclose(other_state[name], values, rtol=1e-3, atol=1e-5, err_msg=name)
    for name, values in history.items():
        np.testing.assert_allclose(other_history[name], values, rtol=1e-4, err_msg=name)
    assert {path.name for path in tmp_path.iterdir()} == {"1.h5", "1.json", "2.h5", "2.json"}


def test_more_processes_than_gpus_are_refused(job, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(InputError, match=r"run\.processes is 2, but 1 GPUs are visible"):
        replace(job, device="cuda").run(2)


def test_a_mistake_is_one_sentence_from_several_processes_too(job, tmp_path):
    too_many = replace(job, model=str(tmp_path / "m.h5"), options={**OPTIONS, "components": 5000})
    with pytest.raises(InputError, match=r"^\d+ embeddings cannot start 5000 components"):
        too_many.run(2)
    assert not list(tmp_path.iterdir())


def test_no_process_outlives_a_killed_job(job, tmp_path, root):
    """The job is killed as SLURM or a lack of memory would: without a chance to tell anybody."""
    endless = replace(job, model=str(tmp_path / "m.h5"), options={**OPTIONS, "epochs": 10**6})
    code = f"import sys; sys.path.insert(0, {str(root / 'scripts')!r})\nfrom dinodp.families.fit_job import FitJob\n"
    process = subprocess.Popen([sys.executable, "-c", f"{code}FitJob(**{asdict(endless)!r}).run(2)"])
    deadline = time.monotonic() + 400
    try:
        wait_for(lambda: (tmp_path / "m.h5.checkpoint").exists() or process.poll() is not None, deadline)
        workers = processes_with(str(endless.model))
        assert len(workers) >= 3
    finally:  # or it would fit for ever where this fails
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_for(lambda: not workers & processes_with(str(endless.model)), deadline)


def wait_for(condition, deadline):
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def processes_with(text):
    """Numbers of the processes whose command line holds ``text``."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text in (folder / "cmdline").read_text():
                found.add(int(folder.name))
        except OSError:  # it ended meanwhile
            continue
    return found
