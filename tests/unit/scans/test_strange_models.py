"""Model files that are damaged, or made up by a stranger: the same result, or one sentence."""

import json
import os
import shutil
import subprocess
import sys

import h5py
import huggingface_hub
import numpy as np
import pytest
from scan_phantoms import FAST_FIT, healthy_folder, photo, resign, save_photo

from dinodp.cli import main
from dinodp.errors import InputError
from dinodp.scans import AnomalyDetector
from dinodp.scans.detecting.model_file import load_detector

N_FLIPS = 2000
SMALL = ["--backbone", "classical", "--resolution", "112", "--seed", "3"]
METHODS = {
    "dpmm": ("dpmm", "components=8", "epochs=1"),
    "full": ("gaussian_mixture", "components=2", "epochs=1", "covariance=full", "pca_dims=8"),
    "k_means": ("k_means", "components=8", "epochs=1"),
    "gaussian": ("gaussian",),
    "pca_residual": ("pca_residual",),
    "padim": ("padim", "random_dims=8"),
    "retrieval_bank": ("retrieval_bank", "max_images=2"),
    "patchcore": ("patchcore", "max_embeddings=200"),
    "memory_bank": ("memory_bank", "max_embeddings=200"),
    "eb_mixture": ("eb_mixture", "components=8", "epochs=1"),
    "vmf": ("vmf", "components=8", "epochs=1"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A small model of every kind of state, and a scan."""
    folder = tmp_path_factory.mktemp("models")
    for seed in range(4):
        save_photo(folder / f"healthy/{seed}.png", photo(seed))
    save_photo(folder / "new.png", photo(9, spot=True))
    for name, method in METHODS.items():
        command = ["fit", str(folder / "healthy"), "--out", str(folder / f"{name}.h5"), *SMALL, "--method", *method]
        assert main(command) == 0
    return folder


def outcome(model, scan):
    """The map's bytes, or the sentence."""
    try:
        return AnomalyDetector.load(model).anomaly_map(scan).tobytes()
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("name", METHODS)
def test_no_flipped_bit_changes_a_result_in_silence(models, tmp_path, name):
    content, scan = (models / f"{name}.h5").read_bytes(), models / "new.png"
    whole, changed, generator = outcome(models / f"{name}.h5", scan), tmp_path / "m.h5", np.random.default_rng(0)
    told = 0
    for number in range(N_FLIPS // len(METHODS)):
        flipped = bytearray(content)
        # every second one in the first and last bytes, where HDF5 keeps what it knows of the arrays
        place = int(generator.integers(len(content))) if number % 2 else int(generator.integers(4096))
        flipped[place] ^= 1 << int(generator.integers(8))
        changed.write_bytes(flipped)
        found = outcome(changed, scan)
        if found != whole:
            assert isinstance(found, str), f"byte {place} changes the map in silence"
            assert "m.h5" in found
            told += 1
    assert told > N_FLIPS // len(METHODS) // 4


@pytest.mark.parametrize("cut", [0, 1, 100, 2000, -1, -500])
def test_a_model_that_is_cut_off_is_a_sentence(models, tmp_path, cut):
    (tmp_path / "m.h5").write_bytes((models / "dpmm.h5").read_bytes()[:cut])
    with pytest.raises(InputError, match=r"m\.h5"):
        load_detector(tmp_path / "m.h5")


def edited(models, tmp_path, name, change):
    """A copy of a model with another content under its own digest, as a stranger could make it."""
    copy = tmp_path / "m.h5"
    shutil.copy(models / f"{name}.h5", copy)
    with h5py.File(copy, "r+") as file:
        config = json.loads(file.attrs["config"])
        change(file, config)
        file.attrs["config"] = json.dumps(config)
    resign(copy)
    return copy


def put(key, value, place=(0,)):
    """Set one number of the state."""

    def change(file, config):
        values = np.array(file[f"state/{key}"])
        values[place if values.ndim else ()] = value
        file[f"state/{key}"][...] = values

    return change


def replace(key, values):
    def change(file, config):
        del file[f"state/{key}"]
        file[f"state/{key}"] = values

    return change


def told(path, value):
    """Set one value of the configuration."""

    def change(file, config):
        *way, last = path.split("/")
        for step in way:
            config = config[int(step) if isinstance(config, list) else step]
        config[int(last) if isinstance(config, list) else last] = value

    return change


STATES = [
    ("dpmm", put("means", np.nan), "means holds values that are not finite"),
    ("dpmm", put("covariances", 0), "covariances runs from 0 to"),
    ("dpmm", put("covariances", -1), "covariances runs from -1 to"),
    ("dpmm", put("stick_fractions", 1.5), "stick_fractions runs from"),
    ("dpmm", put("stick_fractions", -0.1), "stick_fractions runs from -0.1"),
    ("dpmm", put("concentration", -2), "concentration runs from -2 to -2; it must lie above 0"),
    ("dpmm", put("s0", -1), "s0 runs from -1"),
    ("dpmm", put("step_count", -1), "step_count runs from -1"),
    ("dpmm", replace("means", np.zeros((9, 92), np.float32)), "means has the shape (9, 92), but (8, 92) is needed"),
    ("dpmm", replace("means", np.zeros((8, 7), np.float32)), "means has the shape (8, 7), but (8, 92) is needed"),
    ("dpmm", replace("means", np.zeros((8, 92), np.int32)), "means is of type int32; floats are needed"),
    ("dpmm", lambda file, config: file.__setitem__("state/more", 1.0), "holds more, which a model of this family"),
    ("dpmm", lambda file, config: file.__delitem__("state/means"), "lacks means"),
    ("full", put("covariances", -5, (0, 0, 0)), "not positive definite"),
    ("full", put("feature_axes", 7), "feature_axes runs from"),
    ("k_means", put("means", np.inf), "means holds values that are not finite"),
    ("gaussian", put("factor", np.nan), "factor holds values that are not finite"),
    ("memory_bank", put("remembered", np.inf), "remembered holds values that are not finite"),
    ("memory_bank", put("images", -1), "images runs from -1"),
    ("eb_mixture", put("variances", -1), "variances runs from -1"),
    ("eb_mixture", put("log_weights", 1), "log_weights runs from"),
    ("eb_mixture", put("inflation", 0), "inflation runs from 0 to 0; it must lie above 0"),
    ("eb_mixture", replace("means", np.zeros((8, 7), np.float32)), "means has the shape (8, 7), but (any, 92) is"),
    ("eb_mixture", replace("means", np.zeros((9, 92), np.float32)), "Log-weights, means and variances have shapes"),
    ("vmf", put("kappas", 0), "kappas runs from 0 to"),
    ("vmf", put("kappas", np.nan), "kappas holds values that are not finite"),
    ("vmf", put("means", 7), "means runs from"),
    ("vmf", lambda file, config: file.__delitem__("state/counts"), "lacks counts"),
    ("vmf", replace("kappas", np.ones(9, np.float32)), "Log-weights, means and kappas have shapes"),
    ("memory_bank", replace("remembered", np.zeros((0, 92), np.float16)), "remembered has the shape (0, 92)"),
]
CONFIGURATIONS = [
    ("calibration/thresholds/fpr05", 1e9, "do not rise"),
    ("calibration/thresholds/fpr01", None, "damaged, or another version"),
    ("calibration/scan_scores", [], "a rate from 0 to 1 for each of its scan scores"),
    ("calibration/scan_rates/fpr10", [2.0], "a rate from 0 to 1 for each of its scan scores"),
    ("calibration/tail/count", 3, "its counts fall to 0"),
    ("calibration/tail/count", "many", "must be integers"),
    ("calibration/tail/scores", [0.0, 0.0], "and a count for each of them"),
    ("calibration/tail", {"count": 9, "scores": [1.0, 0.0], "above": [1, 0]}, "scores of the tail must rise"),
    ("calibration/tail", {"count": 9, "scores": [1.0], "above": [1]}, "its counts fall to 0"),
    ("calibration/tail", {"count": 9, "scores": [1.0], "above": [0.0]}, "must be integers"),
    ("calibration/tail", {"count": 9, "scores": [1e9], "above": [0]}, "beyond the scores of its tail"),
    ("calibration/tail", {"count": 9, "scores": [], "above": []}, "from 1 to 4096 scores"),
    ("calibration/map_range", [3.0, 3.0], "does not rise"),
    ("calibration/map_range", [3.0], "damaged, or another version"),
    ("healthy/kind", "hologram", "of an unknown kind"),
    ("healthy/depth", 12, "of an unknown kind"),
    ("healthy/low", [5, 3], "low runs from 5 down to 3"),
    ("healthy/width", [-1, 3], "not above 0"),
    ("settings/resolution", 10**6, "resolution is 1000000; it must be at most 8192"),
    ("settings/resolution", "448", "damaged, or another version"),
    ("settings/method/components", 10**9, "covariances has the shape (8, 92), but (1000000000, 92) is needed"),
    ("settings/method/components", 1, "below the least allowed, 2"),
    ("settings/axis", "diagonal", "Unknown axis 'diagonal'"),
    ("settings", [], "damaged, or another version"),
    ("backbone", "classical", "damaged, or another version"),
]


@pytest.mark.parametrize(("name", "change", "sentence"), STATES)
def test_a_state_that_no_fit_gives_is_refused(models, tmp_path, name, change, sentence):
    with pytest.raises(InputError) as refused:
        load_detector(edited(models, tmp_path, name, change))
    assert sentence in str(refused.value)
    assert "m.h5 is damaged" in str(refused.value)


@pytest.mark.parametrize(("path", "value", "sentence"), CONFIGURATIONS)
def test_a_configuration_that_no_fit_gives_is_refused(models, tmp_path, path, value, sentence):
    with pytest.raises(InputError) as refused:
        load_detector(edited(models, tmp_path, "dpmm", told(path, value)))
    assert sentence in str(refused.value)


def test_a_canvas_as_large_as_the_memory_is_refused(tmp_path):
    healthy_folder(tmp_path / "healthy", 2)
    assert main(["fit", str(tmp_path / "healthy"), "--out", str(tmp_path / "dpmm.h5"), *FAST_FIT]) == 0
    (tmp_path / "copy").mkdir()
    with pytest.raises(InputError, match="measures 1000000000 pixels; at most 8192"):
        load_detector(edited(tmp_path, tmp_path / "copy", "dpmm", told("healthy/side", 2e9)))


def test_links_of_a_stranger_are_not_followed(models, tmp_path, capsys):
    copy = edited(models, tmp_path, "dpmm", lambda file, config: file.__delitem__("state/means"))
    with h5py.File(copy, "r+") as file:
        file.create_dataset("state/means", (8, 92), "uint8", external=[("/etc/passwd", 0, 8 * 92)])
    resign(copy)
    for command in (["info", str(copy)], ["predict", str(models / "new.png"), "--model", str(copy), "--out",
                                          str(tmp_path / "out")]):  # fmt: skip
        assert main(command) == 1
        captured = capsys.readouterr()
        assert "external storage) at /state/means, which dinodp never writes" in captured.err
        assert captured.out == ""
    assert not (tmp_path / "out").exists()


def test_a_scan_without_a_finite_score_is_a_failed_scan(models, tmp_path, capsys, monkeypatch):
    """Means that are finite, but so large that a distance is not."""
    copy = edited(models, tmp_path, "gaussian", put("mean", 3e38, (slice(None),)))
    command = ["predict", str(models / "new.png"), "--model", str(copy), "--out", str(tmp_path / "out"), "--force"]
    assert main(command) == 1
    assert "the model gives it a score that is not finite" in capsys.readouterr().out
    table = (tmp_path / "out/scans.csv").read_text()
    assert ",failed,,,,,,,," in table
    assert "not finite (NaN or infinity)" in table
    assert not list((tmp_path / "out").glob("maps/*"))


def hub_model(models, tmp_path):
    def change(file, config):
        config["settings"].update(backbone="stranger/net", layers=[-1])
        config["backbone"].update(backbone="stranger/net", revision="a" * 40, weights_sha256="b" * 64)

    return edited(models, tmp_path, "dpmm", change)


def test_the_network_is_not_asked_for_a_name_in_a_file(models, tmp_path, monkeypatch):
    asked = []

    def snapshot_download(repo_id, **options):
        asked.append((repo_id, options.get("local_files_only", False)))
        raise FileNotFoundError("not in the cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    copy = hub_model(models, tmp_path)
    with pytest.raises(InputError, match="does not send dinodp to the network: allow the download with `--back"):
        load_detector(copy)
    assert asked == [("stranger/net", True)]
    with pytest.raises(InputError, match="cannot be reached"):
        load_detector(copy, backbone="stranger/net")
    assert asked[1:] == [("stranger/net", False)]


def test_the_hub_hears_nothing_of_us():
    code = "from dinodp.backbones.vision_transformer import huggingface_hub as hub; print(hub.constants.{})"
    name = "HF_HUB_DISABLE_TELEMETRY"
    environment = {key: value for key, value in os.environ.items() if key != name}
    command = [sys.executable, "-c", code.format(name)]
    assert subprocess.run(command, capture_output=True, check=True, env=environment).stdout == b"True\n"
