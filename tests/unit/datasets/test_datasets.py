"""Phantoms, folders of images, and what every source shares."""

import numpy as np
import pytest
from PIL import Image

from dinodp.datasets.manifest import read_manifest
from dinodp.datasets.sources import SOURCES, prepare_dataset
from dinodp.datasets.sources.phantom_drawing import LESIONS, Anatomy, draw_lesion, draw_slice
from dinodp.datasets.subjects import compile_pattern, hold_out, subjects_of
from dinodp.errors import InputError

SMALL = {"source": "phantoms", "size": 64, "n_train": 6, "n_valid": 5, "n_test": 9}


def test_the_sources_are_found():
    assert {"phantoms", "image_folder", "nifti", "bmad"} <= set(SOURCES)
    for name, source in SOURCES.items():
        assert source.model_fields["source"].default == name
        assert all(field.description for key, field in source.model_fields.items() if key != "source")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"source": "dicomm"}, r"Data set x.source: 'dicomm' is not known; choose one of bids, bmad, brats2021"),
        ({}, "Data set x.source: the key is missing; choose one of bids, bmad"),
        ({"source": "phantoms", "sed": 1}, "Data set x: unknown key 'sed' for the source 'phantoms'; it has source"),
        ({"source": "image_folder"}, "Data set x.root: the key is missing"),
        ({"source": "phantoms", "n_test": 0}, "n_test: 0 is below the least allowed, 1"),
        ({"source": "phantoms", "size": 32}, "size: 32 is below the least allowed, 64"),
    ],
)
def test_a_wrong_entry_is_said(tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        prepare_dataset("x", options, tmp_path / "x")
    assert not (tmp_path / "x").exists() or not list((tmp_path / "x").iterdir())


def test_phantoms_are_the_same_for_the_same_seed(tmp_path):
    first, second, other = (
        read_manifest(prepare_dataset("phantoms", {**SMALL, "seed": seed}, tmp_path / name))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first["image_sha256"].tolist() == second["image_sha256"].tolist()
    assert set(first["image_sha256"]).isdisjoint(other["image_sha256"])
    assert first["split"].value_counts().to_dict() == {"train": 6, "valid": 5, "test": 9}
    assert first["image_sha256"].is_unique


def test_phantoms_have_masks_where_they_are_anomalous(tmp_path):
    frame = read_manifest(prepare_dataset("phantoms", SMALL, tmp_path / "x"))
    for row in frame.itertuples():
        mask = np.asarray(Image.open(row.mask))
        assert set(np.unique(mask)) == ({0, 255} if row.label == "anomalous" else {0})
    assert frame.groupby("subject")["split"].nunique().max() == 1


@pytest.mark.parametrize("kind", LESIONS)
def test_a_lesion_changes_the_picture_inside_its_mask_only(kind):
    generator = np.random.default_rng(3)
    picture, tissue = draw_slice(Anatomy.draw(generator), 0.5, 128, generator)
    changed, mask = draw_lesion(picture, tissue, kind, generator)
    assert mask.any()
    assert not (mask & ~tissue).any()
    assert np.abs(changed - picture)[mask].mean() > 0.05
    far = np.abs(changed - picture) > 0.05
    assert (far & ~mask).sum() < 0.5 * mask.sum()  # the soft rim


def tiny(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, dtype=np.uint8)).save(path)


@pytest.fixture
def mvtec(tmp_path):
    root = tmp_path / "mine"
    for subject in range(5):
        for index in range(2):
            tiny(root / f"train/good/p{subject}_{index}.png", 10 * subject + index)
    tiny(root / "test/good/q0_0.png", 90)
    tiny(root / "test/tumour/q1_0.jpg", 91)
    tiny(root / "ground_truth/tumour/q1_0_mask.png", 255)
    return root


def prepare(tmp_path, root, **options):
    return read_manifest(
        prepare_dataset("x", {"source": "image_folder", "root": str(root), **options}, tmp_path / "out")
    )


def test_image_folder_holds_out_whole_subjects(tmp_path, mvtec):
    frame = prepare(tmp_path, mvtec, valid_fraction=0.4, subject_pattern="^(?P<subject>p.)")
    assert frame["split"].value_counts().to_dict() == {"train": 6, "valid": 4, "test": 2}
    assert frame.groupby("subject")["split"].nunique().max() == 1
    assert set(frame.loc[frame["split"] != "test", "subject"]) == {f"p{index}" for index in range(5)}
    anomalous = frame[frame["label"] == "anomalous"]
    assert anomalous["mask"].str.endswith("q1_0_mask.png").all()


def test_image_folder_takes_valid_where_it_is(tmp_path, mvtec):
    tiny(mvtec / "valid/good/v0_0.png", 77)
    frame = prepare(tmp_path, mvtec)
    assert frame["split"].value_counts().to_dict() == {"train": 10, "test": 2, "valid": 1}


def test_image_folder_without_masks(tmp_path, mvtec):
    (mvtec / "ground_truth/tumour/q1_0_mask.png").unlink()
    with pytest.raises(InputError, match=r"anomalous image .*q1_0.jpg has no mask: expected .*q1_0_mask.png"):
        prepare(tmp_path, mvtec)
    assert (prepare(tmp_path, mvtec, masks=False)["mask"] == "").all()


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda root: root.rename(root.with_name("gone")), r"there is no folder .*mine \(key root\)"),
        (lambda root: (root / "test").rename(root / "tests"), "there is no folder .*test; the layout is train/good"),
        (
            lambda root: (root / "train/good").rename(root / "train/tumour"),
            "train holds the folder tumour; training images are normal",
        ),
        (lambda root: [p.unlink() for p in (root / "test/good").iterdir()], "test/good holds no image"),
        (lambda root: tiny(root / "valid/x.png"), "valid holds no folder; expected good"),
        (lambda root: (root / "train/good/p0_0.png").write_bytes(b"?"), "p0_0.png is not a readable image"),
    ],
)
def test_a_broken_image_folder_is_said(tmp_path, mvtec, break_it, sentence):
    break_it(mvtec)
    with pytest.raises(InputError, match=sentence):
        prepare(tmp_path, mvtec)
    assert not (tmp_path / "out/manifest.csv").exists()


def test_subjects():
    assert subjects_of(["00012_60", "other"], r"^(?P<subject>\d+)_") == ["00012", "other"]
    assert subjects_of(["00012_60", "other"], r"^(?P<subject>\d+)_", ["a/1", "a/2"]) == ["00012", "a/2"]
    with pytest.raises(InputError, match="must have a group"):
        compile_pattern(r"(\d+)")
    with pytest.raises(InputError, match="is no regular expression"):
        compile_pattern("(")


def test_hold_out_says_what_it_needs(tmp_path, mvtec):
    frame = prepare(tmp_path, mvtec, subject_pattern="^(?P<subject>p.)")
    everyone = frame.assign(split="train", subject="only")
    with pytest.raises(InputError, match="none can be held out of 1 training subject"):
        hold_out(everyone, 0.2, seed=0)
    with pytest.raises(InputError, match=r"valid_fraction must lie between 0 and 1, not 1.5"):
        hold_out(frame, 1.5, seed=0)
