"""Students: the same bytes from the same seed, also after an interruption; what their folder says; what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_device import faked

from dinodp.backbones import load_backbone, student_backbone
from dinodp.backbones.student_file import images_seen
from dinodp.distillation.disturbing import disturbed
from dinodp.distillation.training import NormalImages, Training, distil
from dinodp.errors import InputError
from dinodp.jobs.checkpoints import Checkpoint
from dinodp.options.distillation import DistillationOptions

OPTIONS = DistillationOptions(
    rounds=3, images_per_round=6, passes=2, images_per_step=3, stem=8, width=16, blocks=2, learning_rate=0.005
)
FILES = ("student.json", "student.safetensors")


def pictures(count: int = 4, side: int = 64) -> NormalImages:
    """Bright discs on black."""
    across = np.hypot(*np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j])
    grey = [(np.clip(0.4 + 0.1 * index - across, 0, 1) * 255).astype(np.uint8) for index in range(count)]
    digests = [f"{index:064x}" for index in range(count)]
    return NormalImages("discs", digests, lambda index: np.repeat(grey[index][:, :, None], 3, axis=2))


@pytest.fixture(scope="module")
def teacher():
    return load_backbone("classical", resolution=112, square=True)


@pytest.fixture(scope="module")
def student(teacher, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("students") / "discs"
    distil(teacher, pictures(), OPTIONS, folder)
    return folder


def content(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(teacher, student, tmp_path):
    torch.manual_seed(99)  # the global generator decides nothing
    distil(teacher, pictures(), OPTIONS, tmp_path / "again")
    assert content(tmp_path / "again") == content(student)
    distil(teacher, pictures(), OPTIONS.model_copy(update={"seed": 1}), tmp_path / "other")
    assert content(tmp_path / "other")[1] != content(student)[1]


def stopped_after(count, monkeypatch):
    whole, done = Training.run_round, []

    def run_round(self):
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(whole(self))

    monkeypatch.setattr(Training, "run_round", run_round)
    return whole


def test_an_interrupted_training_ends_with_the_same_bytes(teacher, student, tmp_path, monkeypatch):
    folder = tmp_path / "stopped"
    whole = stopped_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        distil(teacher, pictures(), OPTIONS, folder)
    assert not (folder / FILES[0]).exists()
    assert (tmp_path / "stopped.checkpoint").exists()
    rounds = []
    monkeypatch.setattr(Training, "run_round", lambda self: rounds.append(whole(self)))
    distil(teacher, pictures(), OPTIONS, folder)
    assert len(rounds) == 1
    assert content(folder) == content(student)
    assert not (tmp_path / "stopped.checkpoint").exists()


@pytest.mark.parametrize("change", ["options", "data", "damage"])
def test_a_checkpoint_of_something_else_is_not_used(teacher, tmp_path, monkeypatch, change):
    folder, images, options = tmp_path / "s", pictures(), OPTIONS
    whole = stopped_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        distil(teacher, images, options, folder)
    if change == "damage":
        (tmp_path / "s.checkpoint").write_bytes((tmp_path / "s.checkpoint").read_bytes()[:-999])
    options = options.model_copy(update={"seed": 1}) if change == "options" else options
    images = replace(images, digests=["f" * 64, *images.digests[1:]]) if change == "data" else images
    rounds = []
    monkeypatch.setattr(Training, "run_round", lambda self: rounds.append(whole(self)))
    distil(teacher, images, options, folder)
    assert len(rounds) == OPTIONS.rounds


def test_both_files_can_be_read_by_whom_the_folder_can(student):
    assert len({(student / name).stat().st_mode for name in FILES}) == 1


def test_it_says_what_it_was_made_from(student):
    said = json.loads((student / FILES[0]).read_text())
    assert len(said["history"]["loss"]) == OPTIONS.rounds
    assert said["teacher"]["backbone"] == "classical"
    assert said["data"]["name"] == "discs"
    assert said["options"]["seed"] == 0
    assert images_seen(said, pictures().digests) == 4
    assert images_seen(said, ["e" * 64]) == 0


def test_it_is_a_backbone_with_the_grid_and_the_embeddings_of_its_teacher(teacher, student):
    backbone = load_backbone(str(student), resolution=112, square=True)
    pixels = torch.stack([backbone.prepare(pictures().read(index)) for index in range(2)])
    assert torch.equal(pixels[0], teacher.prepare(pictures().read(0)))
    found, wanted = backbone.embed(pixels), torch.nn.functional.normalize(teacher.embed(pixels), dim=-1)
    assert found.shape == wanted.shape
    assert found.dtype == torch.float32
    assert backbone.provenance()["teacher"] == "classical"


def test_a_long_training_predicts_the_teacher(teacher, tmp_path):
    options = {"rounds": 3, "passes": 60, "disturbed": False}
    distil(teacher, pictures(), OPTIONS.model_copy(update=options), tmp_path / "long")
    loss = json.loads((tmp_path / "long" / FILES[0]).read_text())["history"]["loss"]
    assert loss[2] < loss[1] < loss[0]
    backbone = load_backbone(str(tmp_path / "long"), resolution=112, square=True)
    pixels = torch.stack([backbone.prepare(pictures().read(index)) for index in range(4)])
    wanted = torch.nn.functional.normalize(teacher.embed(pixels), dim=-1)
    mean = wanted.mean((0, 1, 2))
    assert (backbone.embed(pixels) - wanted).square().mean() < 0.5 * (mean - wanted).square().mean()


def test_disturbed_pictures_keep_their_black_and_their_range():
    plain = [torch.zeros(3, 32, 48) for _ in range(2)]
    for picture in plain:
        picture[:, 8:24, 8:40] = 0.5
    generator = torch.Generator().manual_seed(0)
    found = torch.stack([disturbed(plain[0], plain, generator) for _ in range(30)])
    assert found.min() == 0
    assert found.max() <= 1
    assert not found[:, :, :8].any()  # nothing appears where all was black
    assert (found[:, :, 8:24, 8:40] - 0.5).abs().mean() > 0.01


def test_no_image_and_images_of_several_sizes_are_refused(teacher, tmp_path):
    with pytest.raises(InputError, match="There is no normal image to train a student on"):
        distil(teacher, pictures(0), OPTIONS, tmp_path / "none")
    wide = replace(pictures(), read=lambda index: np.zeros((64, 64 + 64 * (index % 2), 3), np.uint8))
    with pytest.raises(InputError, match=r"several sizes .* say square"):
        distil(load_backbone("classical", resolution=112), wide, OPTIONS, tmp_path / "sizes")


def test_damaged_folders_and_another_resolution_are_said_in_one_sentence(student, tmp_path):
    with pytest.raises(InputError, match="was trained with resolution: 112; say so"):
        load_backbone(str(student), square=True)
    with pytest.raises(InputError, match="was trained with square: True; say so"):
        load_backbone(str(student), resolution=112)
    with pytest.raises(InputError, match=r"There is no student in results/students/a/b: it has no student.json"):
        load_backbone("results/students/a/b")
    said = json.loads((student / FILES[0]).read_text())
    (tmp_path / FILES[0]).write_text(json.dumps({**said, "format": 0}))
    with pytest.raises(InputError, match="is of another version, or damaged"):
        load_backbone(str(tmp_path), resolution=112, square=True)
    (tmp_path / FILES[0]).write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"student.safetensors cannot be read \(No such file"):
        load_backbone(str(tmp_path), resolution=112, square=True)
    (tmp_path / FILES[1]).write_bytes(b"something else")
    with pytest.raises(InputError, match=r"student.safetensors is not what student.json says"):
        load_backbone(str(tmp_path), resolution=112, square=True)
    wrong = {**said, "network": {**said["network"], "width": 8}}
    (tmp_path / FILES[0]).write_text(json.dumps(wrong))
    (tmp_path / FILES[1]).write_bytes((student / FILES[1]).read_bytes())
    with pytest.raises(InputError, match=r"student.safetensors does not fit student.json"):
        load_backbone(str(tmp_path), resolution=112, square=True)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_on_a_faked_gpu_it_learns_the_same(teacher, student, kind, tmp_path, monkeypatch):
    pixels = torch.stack([teacher.prepare(pictures().read(index)) for index in range(2)])
    wanted = load_backbone(str(student), resolution=112, square=True).embed(pixels)
    saved, save = set(), student_backbone.save

    def noted(state):
        saved.update(part.device.type for part in state.values())
        return save(state)

    monkeypatch.setattr(student_backbone, "save", noted)
    with faked(monkeypatch, kind, float64=False) as fake:
        there = load_backbone("classical", resolution=112, square=True, device=kind)
        distil(there, pictures(), OPTIONS, tmp_path / "there")
        assert saved == {"cpu"}
        assert Training(there, pictures(), OPTIONS)._draw().targets.device.type == "cpu"  # a round may be large
        found = load_backbone(str(tmp_path / "there"), resolution=112, square=True, device=kind).embed(pixels)
        assert found.device == fake.device
        torch.testing.assert_close(found.cpu(), wanted, rtol=1e-3, atol=1e-3)


def test_a_checkpoint_of_a_gpu_is_read_where_there_is_none(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "c", "key")
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    checkpoint.save({"weights": torch.ones(2)})
    assert torch.equal(checkpoint.load()["weights"], torch.ones(2))


def test_a_loss_that_is_not_finite_is_refused(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher, "embed", lambda pixels: torch.full((len(pixels), 8, 8, teacher.dim), torch.nan))
    with pytest.raises(InputError, match="loss is not finite"):
        distil(teacher, pictures(), OPTIONS, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_folded_network_computes_the_same(teacher):
    training = Training(teacher, pictures(), OPTIONS)
    training.run_round()
    network = training.network.eval().requires_grad_(False)
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = network(x)
    folded = network.folded()
    assert not [layer for layer in folded.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert torch.allclose(folded(x), expected, atol=1e-5 * float(expected.abs().max()))


def test_a_teacher_that_resizes_otherwise_is_refused(tmp_path):
    teacher = load_backbone("classical", resolution=112, square=True)
    teacher.interpolation = "bilinear"
    with pytest.raises(InputError, match="resizes images by bilinear interpolation, but a student by bicubic"):
        distil(teacher, pictures(), OPTIONS, tmp_path / "student")
