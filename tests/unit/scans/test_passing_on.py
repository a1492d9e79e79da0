"""Models that are passed on: with their weights and the licence of these, a card for the hub, and what they need."""

import shutil

import numpy as np
import pytest
from huggingface_hub import ModelCard
from scan_phantoms import FAST_FIT, head, healthy_folder, save

from dinodp.cli import main
from dinodp.errors import InputError
from dinodp.scans import AnomalyDetector
from dinodp.scans.detecting.weights import IncludedWeights, licence_of

DIGEST = "a" * 64


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A tiny random ViT in Hugging Face format."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=64, patch_size=16
    )
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def given(vit, tmp_path_factory):
    """A folder with a model and its weights, and nothing else; the weights that it was fitted with are gone."""
    made, place = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("given")
    shutil.copytree(vit, made / "net")
    command = ["fit", str(healthy_folder(made / "healthy", 4)), "--out", str(made / "m.h5")]
    command += ["--backbone", str(made / "net"), "--resolution", "112", "--slice-step", "4", "--include-weights"]
    assert main([*command, "--licence", "MIT", "--method", "eb_mixture", "components=8", "epochs=2"]) == 0
    save(place / "new.nii.gz", head(7, lesion=True))
    np.save(place / "expected.npy", AnomalyDetector.load(made / "m.h5").anomaly_map(place / "new.nii.gz"))
    shutil.copy(made / "m.h5", place)
    shutil.copy(made / "m.card.md", place)
    shutil.copytree(made / "m.weights", place / "m.weights")
    shutil.rmtree(made)
    return place


def test_a_model_with_its_weights_needs_nothing_else(given, capsys):
    assert {path.name for path in (given / "m.weights").iterdir()} == {"config.json", "model.safetensors"}
    found = AnomalyDetector.load(given / "m.h5").anomaly_map(given / "new.nii.gz")
    np.testing.assert_allclose(found, np.load(given / "expected.npy"), atol=1e-5)
    assert "under the licence MIT." in (given / "m.card.md").read_text()
    assert main(["info", str(given / "m.h5")]) == 0
    said = capsys.readouterr().out
    assert f"weights: beside the model, in {given / 'm.weights'}, licence MIT" in said
    assert "scans: grey volumes, axial slices, 2 to 2 mm, 2 to 2 mm, 2 to 2 mm, values" in said


@pytest.mark.parametrize("what", ["missing", "changed", "more"])
def test_weights_that_are_not_those_of_the_fit_are_refused(given, tmp_path, what):
    shutil.copytree(given, tmp_path / "copy")
    folder = tmp_path / "copy/m.weights"
    if what == "missing":
        (folder / "config.json").unlink()
    elif what == "changed":
        (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    else:
        shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    sentence = {
        "missing": r"config\.json is missing: keep the folder beside it",
        "changed": r"config\.json is not as it was when .* was fitted",
        "more": r"holds the weights other\.safetensors, which do not belong to",
    }
    with pytest.raises(InputError, match=sentence[what]):
        AnomalyDetector.load(tmp_path / "copy/m.h5")


def test_info_says_where_weights_are_to_be_found(given, vit, tmp_path, capsys):
    shutil.copy(given / "m.h5", tmp_path)
    assert main(["info", str(tmp_path / "m.h5")]) == 0
    assert "weights: missing: they belong beside the model" in capsys.readouterr().out
    healthy = str(healthy_folder(tmp_path / "healthy", 3))
    shutil.copytree(vit, tmp_path / "net")
    for name, backbone in (("a", "classical"), ("b", str(tmp_path / "net"))):
        command = ["fit", healthy, "--out", str(tmp_path / f"{name}.h5"), *FAST_FIT[2:], "--backbone", backbone]
        assert main([*command, "--resolution", "112"]) == 0
    shutil.rmtree(tmp_path / "net")
    for name, said in (("a", "weights: none are needed"), ("b", "any more: say with --backbone where they are")):
        assert main(["info", str(tmp_path / f"{name}.h5")]) == 0
        assert said in capsys.readouterr().out


def test_weights_are_included_only_under_a_licence_that_allows_it(vit, tmp_path, capsys):
    assert licence_of("facebook/dinov2-small", None) == "Apache-2.0"
    command = ["fit", str(healthy_folder(tmp_path / "h", 2)), "--out", str(tmp_path / "m.h5"), "--include-weights"]
    for more, sentence in (
        (["--backbone", str(vit)], "is not known here: state it with --licence, one of Apache-2.0, MIT"),
        (["--backbone", str(vit), "--licence", "Proprietary"], "The licence 'Proprietary' is none of those known"),
        (["--backbone", "classical"], "The classical descriptor has no weights"),
    ):
        assert main([*command, *more]) == 1
        assert sentence in capsys.readouterr().err
    (tmp_path / "m.weights").mkdir()
    (tmp_path / "m.weights/own.txt").touch()
    assert main([*command, "--backbone", str(vit), "--licence", "MIT"]) == 1
    assert "m.weights exists already" in capsys.readouterr().err
    assert not (tmp_path / "m.h5").exists()


def test_pickled_weights_are_not_passed_on(vit, tmp_path, capsys):
    import torch
    from safetensors.torch import load_file

    shutil.copytree(vit, tmp_path / "net")
    torch.save(load_file(tmp_path / "net/model.safetensors"), tmp_path / "net/pytorch_model.bin")
    (tmp_path / "net/model.safetensors").unlink()
    command = ["fit", str(healthy_folder(tmp_path / "h", 3)), "--out", str(tmp_path / "m.h5"), "--include-weights"]
    command += ["--backbone", str(tmp_path / "net"), "--licence", "MIT", "--resolution", "112", "--slice-step", "8"]
    assert main([*command, "--method", "k_means", "components=4", "epochs=1"]) == 1
    assert "holds pickled weights (.bin), which are not passed on" in capsys.readouterr().err
    assert not (tmp_path / "m.weights").exists()


@pytest.mark.parametrize(
    ("licence", "files", "sentence"),
    [
        ("Secret", {"a.safetensors": DIGEST}, "none of those known to allow"),
        ("MIT", {}, "must be files without a folder"),
        ("MIT", {"../a": DIGEST}, "must be files without a folder"),
        ("MIT", {"a": "x"}, "must be files without a folder"),
    ],
    ids=["licence", "none", "elsewhere", "digest"],
)
def test_what_was_never_included_is_refused(licence, files, sentence):
    with pytest.raises(InputError, match=sentence):
        IncludedWeights(licence, files)


def test_the_card_is_one_of_the_hub(given, tmp_path):
    card = ModelCard.load(given / "m.card.md")
    assert card.data.library_name == "dinodp"
    assert card.data.license == "other"
    assert "anomaly-detection" in card.data.tags
    assert card.data.base_model is None  # a folder is no name on the hub
    assert card.text.lstrip().startswith("# Model card: m.h5")
    detector = AnomalyDetector.load(given / "m.h5")
    detector.fitted_.scorer.embedder.backbone.name = "facebook/dinov2-small"
    detector.save(tmp_path / "hub.h5")
    assert ModelCard.load(tmp_path / "hub.card.md").data.base_model == "facebook/dinov2-small"


def test_an_updated_model_has_the_weights_too_and_one_saved_elsewhere_has_none(given, vit, tmp_path):
    healthy = str(healthy_folder(tmp_path / "healthy", 3))
    command = ["fit", healthy, "--out", str(tmp_path / "m.h5"), "--backbone", str(vit), "--resolution", "112"]
    command += ["--include-weights", "--licence", "MIT", "--slice-step", "8", "--method", "dpmm", "components=4"]
    assert main([*command, "epochs=1"]) == 0
    for seed in (20, 21):
        save(tmp_path / f"new/{seed}.nii.gz", head(seed))
    assert main(["update", str(tmp_path / "m.h5"), str(tmp_path / "new"), "--out", str(tmp_path / "n.h5")]) == 0
    shutil.rmtree(tmp_path / "m.weights")
    detector = AnomalyDetector.load(tmp_path / "n.h5")
    assert detector.fitted_.weights is not None
    (tmp_path / "elsewhere").mkdir()
    detector.save(tmp_path / "elsewhere/n.h5")
    assert AnomalyDetector.load(tmp_path / "elsewhere/n.h5", backbone=str(vit)).fitted_.weights is None
