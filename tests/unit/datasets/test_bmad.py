"""Each layout in which BMAD circulates, built small on disk, and what is said of broken ones."""

import shutil

import numpy as np
import pytest
from PIL import Image

from dinodp.datasets.manifest import read_manifest
from dinodp.datasets.sources import prepare_dataset
from dinodp.errors import InputError

# Folders by (split, label) of images and masks; {bad} is the name of the anomalous folder.
LAYOUTS = {
    "1 brain": ("train/good", "{split}/{label}/img", "{split}/{label}/label", ("valid", "test")),
    "1 liver": ("train/good", "{split}/img/{label}", "{split}/label/{label}", ("valid", "test")),
    "1 retina": ("Train/train/good", "{Split}/{split}/{label}", "{Split}/{split}_label/{label}", ("val", "test")),
    "2": ("train/good", "{split}/{label}/img", "{split}/{label}/label", ("val", "test")),
    "4": ("train/good/img", "{split}/{label}/img", "{split}/{label}/anomaly_mask", ("valid", "test")),
    "4 without outer img": ("train/good/img", "{split}/{label}/img", "{split}/{label}/label", ("valid", "test")),
    "5": ("train/good", "{split}/{label}", "ground_truth/{label}", ("test",)),
}


def save(path, value, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, dtype=np.uint8)).save(path)


def build(root, layout, bad="Ungood"):
    """Two images per label and split, four in train, of subjects that are in one split only."""
    train, images, masks, splits = LAYOUTS[layout]
    for index in range(4):
        save(root / train / f"t{index // 2}_{60 + index}.png", index)
    for split in splits:
        for label in ("good", bad):
            for index in range(2):
                names = {"split": split, "Split": split.capitalize(), "label": label}
                name = f"{split}{label}_{index}.png"
                save(root / images.format(**names) / name, 50 + index)
                save(root / masks.format(**names) / name, 0 if label == "good" else 255)


def prepare(root, out, **options):
    return read_manifest(prepare_dataset("x", {"source": "bmad", "root": str(root), **options}, out))


@pytest.mark.parametrize("outer", ["", "Brain_AD/BraTS2021_slice"])
@pytest.mark.parametrize("bad", ["Ungood", "ungood"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised(tmp_path, layout, bad, outer):
    build(tmp_path / "data" / outer, layout, bad)
    frame = prepare(tmp_path / "data", tmp_path / "out", valid_fraction=0.5)
    counts = frame.groupby(["split", "label"]).size().to_dict()
    held_out = layout == "5"
    assert counts == {
        ("train", "normal"): 2 if held_out else 4,
        ("valid", "normal"): 2,
        **({} if held_out else {("valid", "anomalous"): 2}),
        ("test", "normal"): 2,
        ("test", "anomalous"): 2,
    }
    anomalous = frame[frame["label"] == "anomalous"]
    assert all(np.asarray(Image.open(mask)).max() == 255 for mask in anomalous["mask"])
    assert frame.groupby("subject")["split"].nunique().max() == 1
    assert set(frame.loc[frame["split"] == "train", "subject"]) <= {"t0", "t1"}


def test_image_level_labels_need_no_masks(tmp_path):
    build(tmp_path / "data", "4")
    for folder in (tmp_path / "data").glob("*/*/anomaly_mask"):
        shutil.rmtree(folder)
    with pytest.raises(InputError, match="has none of the known layouts"):
        prepare(tmp_path / "data", tmp_path / "out")
    assert (prepare(tmp_path / "data", tmp_path / "out", masks=False)["mask"] == "").all()


def two_copies(root):
    build(root / "a", "1 brain")
    build(root / "b", "1 liver")


def without_valid(root):
    build(root, "1 brain")
    shutil.rmtree(root / "valid")


def cut_off(root):
    build(root, "1 brain")
    path = root / "test/Ungood/img/testUngood_0.png"
    path.write_bytes(path.read_bytes()[:20])


def after(break_it):
    def change(root):
        build(root, "1 brain")
        break_it(root)

    return change


BROKEN = {
    "no folder": (lambda root: None, "there is no folder .*data (key root)"),
    "empty folder": (lambda root: root.mkdir(), "none of the known layouts; looked for .*; it holds nothing."),
    "another layout": (lambda root: save(root / "images/1.png", 0), "none of the known layouts; .*; it holds images."),
    "only training images": (lambda root: save(root / "train/good/1.png", 0), "none of the known layouts"),
    "two data sets": (two_copies, "fits several layouts: .*a (.*); .*b (.*); set root to the one that is meant"),
    "no validation split": (without_valid, "has no split valid; set valid_fraction to hold out"),
    "no mask for an image": (
        after(lambda root: (root / "test/Ungood/label/testUngood_1.png").unlink()),
        "the anomalous image .*test/Ungood/img/testUngood_1.png has no mask of the same name among 1 masks",
    ),
    "no image for a mask": (
        after(lambda root: (root / "test/good/img/testgood_1.png").unlink()),
        "the mask .*test/good/label/testgood_1.png has no image of the same name among 1 images",
    ),
    "mask of another size": (
        after(lambda root: save(root / "test/Ungood/label/testUngood_0.png", 255, (4, 8))),
        "The mask .*testUngood_0.png has 4 x 8 pixels, but its image .* has 8 x 8",
    ),
    "image cut off in its header": (cut_off, "testUngood_0.png is not a readable image"),
    "an image that is none": (
        after(lambda root: (root / "train/good/t0_60.png").write_text("<html>")),
        "t0_60.png is not a readable image",
    ),
    "no normal validation image": (
        after(lambda root: shutil.rmtree(root / "valid/good")),
        "valid split of the data set x holds no normal image",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_copy_is_said(tmp_path, kind):
    make, sentence = BROKEN[kind]
    make(tmp_path / "data")
    with pytest.raises(InputError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        prepare(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out/manifest.csv").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"subject_pattern": "(.*)"}, r"must have a group \(\?P<subject>...\)"),
        ({"subject_pattern": "("}, "is no regular expression"),
        ({"valid_fraction": 2}, "valid_fraction: 2 is not below 1"),
    ],
)
def test_a_wrong_key_is_said(tmp_path, options, sentence):
    build(tmp_path / "data", "5")
    with pytest.raises(InputError, match=sentence):
        prepare(tmp_path / "data", tmp_path / "out", **options)


def test_real_slices(shared, tmp_path):
    frame = prepare(shared / "data/brats2015_flair_png", tmp_path / "out", valid_fraction=0.25)
    assert frame.groupby(["split", "label"]).size().sum() == 323
    assert frame.groupby("subject")["split"].nunique().max() == 1
    assert (frame["split"] == "test").sum() == 199
