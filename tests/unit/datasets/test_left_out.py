"""What a data set's folder holds is read, named in the log, or refused, whatever the source."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from dinodp.datasets.manifest import read_manifest
from dinodp.datasets.sources import SOURCES, dataset_options, prepare_dataset
from dinodp.datasets.subjects import subjects_of
from dinodp.datasets.walking import say_beside
from dinodp.errors import InputError


def tiny(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, dtype=np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path):
    """A folder in MVTec layout."""
    root = tmp_path / "mine"
    for index in range(4):
        tiny(root / f"train/good/p{index}.png", 10 + index)
    tiny(root / "test/good/q0.png", 90)
    tiny(root / "test/bad/q1.png", 91)
    tiny(root / "ground_truth/bad/q1_mask.png", 255)
    return root


@pytest.fixture
def bmad(tmp_path):
    root = tmp_path / "mine"
    for index in range(4):
        tiny(root / f"train/good/p{index}_0.png", 10 + index)
    for label, value in (("good", 0), ("Ungood", 255)):
        for split in ("valid", "test"):
            tiny(root / f"{split}/{label}/img/{split}{label}_0.png", 90 + value // 10)
            tiny(root / f"{split}/{label}/label/{split}{label}_0.png", value)
    return root


def prepare(tmp_path, source, root, **options):
    folder = tmp_path / "out"
    return read_manifest(prepare_dataset("x", {"source": source, "root": str(root), **options}, folder))


def counts(frame):
    return frame.groupby(["split", "label"]).size().to_dict()


@pytest.mark.parametrize(
    "name", ["train/good/._p0.png", "train/.ipynb_checkpoints/p0.png", "train/good/.trash/p0.png", "__MACOSX/x.png",
             "test/.ipynb_checkpoints/q.png", "test/good/Thumbs.db", "test/__MACOSX/._bad.png"]
)  # fmt: skip
@pytest.mark.parametrize("source", ["image_folder", "bmad"])
def test_hidden_files_change_nothing(tmp_path, request, source, name, caplog):
    root = request.getfixturevalue("photos" if source == "image_folder" else "bmad")
    before = prepare(tmp_path, source, root)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b"\0\5\x16\7")
    caplog.clear()
    assert prepare(tmp_path, source, root).equals(before)
    assert "left out" not in caplog.text


@pytest.mark.parametrize("name", ["normal", "Good", "GOOD", "ok", "Healthy", "no-anomaly", "Normal"])
def test_normal_images_below_another_name_are_no_anomaly(tmp_path, photos, name):
    (photos / "test/good").rename(photos / "test" / name)
    with pytest.raises(InputError, match=f"holds the folder {name}, which would count as anomalous"):
        prepare(tmp_path, "image_folder", photos, masks=False)


def test_a_test_split_without_normal_images_is_named(tmp_path, photos, caplog):
    (photos / "test/good/q0.png").unlink()
    (photos / "test/good").rmdir()
    assert counts(prepare(tmp_path, "image_folder", photos)) == {
        ("train", "normal"): 3, ("valid", "normal"): 1, ("test", "anomalous"): 1,
    }  # fmt: skip
    assert "holds no folder good: all its images count as anomalous" in caplog.text


@pytest.mark.parametrize(
    ("name", "folder"),
    [("val/good/v.png", "val"), ("Validation/good/v.png", "Validation"), ("Test/bad/v.png", "Test"),
     ("Ground-Truth/bad/q1.png", "Ground-Truth")],
)  # fmt: skip
def test_a_split_of_another_name_is_refused(tmp_path, photos, name, folder):
    tiny(photos / name, 5)
    with pytest.raises(InputError, match=f"{name} below .* would not be read: the folder '{folder}' is none"):
        prepare(tmp_path, "image_folder", photos)


@pytest.mark.parametrize("name", ["test/Good/img/a_0.png", "test/normal/img/a_0.png", "Val/good/img/a_0.png",
                                  "test/anomalous/img/a_0.png"])  # fmt: skip
def test_labels_and_splits_of_other_spelling_in_bmads_layouts(tmp_path, bmad, name):
    tiny(bmad / name, 5)
    with pytest.raises(InputError, match=f"the image {name} below .* would not be read: the folder '.*' is none of"):
        prepare(tmp_path, "bmad", bmad)


def test_what_no_layout_names_is_said_once(tmp_path, photos, caplog):
    tiny(photos / "train/good/deep/x.png", 1)
    tiny(photos / "train/loose.png", 2)
    tiny(photos / "ground_truth/bad/orphan_mask.png", 3)
    (photos / "readme.txt").write_text("hello")
    prepare(tmp_path, "image_folder", photos)
    said = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert said == [
        f"{photos}: left out are 1 file of another format (such as readme.txt); 3 images without a place in the "
        "layout (such as ground_truth/bad/orphan_mask.png)."
    ]


def test_a_class_with_images_in_subfolders_only(tmp_path, photos):
    tiny(photos / "test/burn/deep/x.png", 1)
    with pytest.raises(InputError, match=r"test/burn holds no image \(.*\); it holds 1 subfolder \(such as deep\)"):
        prepare(tmp_path, "image_folder", photos)


@pytest.mark.parametrize("source", ["image_folder", "bmad"])
def test_masks_that_are_not_asked_for_are_not_said(tmp_path, request, source, caplog):
    root = request.getfixturevalue("photos" if source == "image_folder" else "bmad")
    prepare(tmp_path, source, root, masks=False)
    assert "left out" not in caplog.text


def test_suffixes_in_capitals_are_read_with_their_masks(tmp_path, photos):
    (photos / "test/bad/q1.png").rename(photos / "test/bad/q1.PNG")
    (photos / "ground_truth/bad/q1_mask.png").rename(photos / "ground_truth/bad/q1_mask.TIF".replace("TIF", "PNG"))
    frame = prepare(tmp_path, "image_folder", photos)
    assert frame.loc[frame["label"] == "anomalous", "mask"].str.endswith("q1_mask.PNG").all()


def test_two_masks_of_one_image_are_refused(tmp_path, photos):
    tiny(photos / "ground_truth/bad/q1_mask.bmp", 255)
    with pytest.raises(InputError, match=r"q1_mask\.png differ in their suffix only"):
        prepare(tmp_path, "image_folder", photos)


def test_a_mask_of_a_normal_image_is_read(tmp_path, photos):
    tiny(photos / "ground_truth/good/q0_mask.png", 255)
    frame = prepare(tmp_path, "image_folder", photos)
    assert frame.loc[frame["image"].str.endswith("q0.png"), "mask"].str.endswith("good/q0_mask.png").all()


def test_a_linked_image_counts_once(tmp_path, photos):
    (photos / "train/good/again.png").symlink_to(photos / "train/good/p0.png")
    frame = prepare(tmp_path, "image_folder", photos)
    assert (frame["split"] != "test").sum() == 4


@pytest.mark.parametrize("source", SOURCES)
def test_tilde_is_the_home_folder(monkeypatch, source):
    monkeypatch.setenv("HOME", "/home/me")
    kind = SOURCES[source]
    given = {key: f"~/{key}" for key in ("root", "btcv", "lits", "released_copy") if key in kind.model_fields}
    assert kind.read({"source": source, **given}, "x").places() == [f"/home/me/{key}" for key in given]


def test_a_pattern_that_fits_nothing_is_refused(tmp_path, photos):
    with pytest.raises(InputError, match=r"subject_pattern '\(\?P<subject>sub-\.\)' fits none of the 6 names"):
        prepare(tmp_path, "image_folder", photos, subject_pattern="(?P<subject>sub-.)")


def test_names_that_the_pattern_does_not_fit_are_counted(caplog):
    assert subjects_of(["p1_a", "p1_b", "q"], r"(?P<subject>p\d)_") == ["p1", "p1", "q"]
    assert "does not fit 1 of 3 names (such as 'q'): each of them is a subject of its own" in caplog.text


def test_without_a_pattern_every_name_is_its_own(caplog):
    assert subjects_of(["a", "b"], None) == ["a", "b"]
    assert subjects_of(["a", "b"], r"(?P<subject>p\d)", is_given=False) == ["a", "b"]
    assert "does not fit 2 of 2 names" in caplog.text


@pytest.mark.parametrize("keys", [{"depth": 12}, {"window": [0, 4095]}])
@pytest.mark.parametrize("source", ["image_folder", "bmad"])
def test_depth_and_window_make_eight_bits(tmp_path, request, source, keys):
    root = request.getfixturevalue("photos" if source == "image_folder" else "bmad")
    for index, path in enumerate(sorted(root.rglob("train/good/*.png"))):
        Image.fromarray(np.uint16([[0, 4095, 16 * index, 5000]] * 8).repeat(2, axis=1)).save(path)
    frame = prepare(tmp_path, source, root, **keys)
    train = [np.asarray(Image.open(path)) for path in frame.loc[frame["split"] == "train", "image"]]
    assert all(str(tmp_path / "out/images") in path for path in frame["image"])
    assert all(values.dtype == np.uint8 and values[0, ::2].tolist()[:2] == [0, 255] for values in train)
    assert all(values[0, -1] == 255 for values in train)
    assert frame["subject"].nunique() == prepare(tmp_path, source, root)["subject"].nunique()


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [({"window": [5, 5]}, r"window: it must be two rising numbers, not \[5.0, 5.0\]"),
     ({"window": [0, 5], "depth": 12}, "give depth or window, not both"), ({"depth": 0}, "depth: 0 is below")],
)  # fmt: skip
def test_wrong_windows_are_refused(tmp_path, photos, keys, sentence):
    with pytest.raises(InputError, match=sentence):
        prepare(tmp_path, "image_folder", photos, **keys)


def test_names_that_bmads_own_pattern_does_not_fit_are_their_own_subjects(tmp_path, bmad, caplog):
    for number, path in enumerate(sorted(bmad.rglob("*.png"))):
        if "label" not in path.parts:
            path.rename(path.with_name(f"{1000 + number % 2}.png" if "train" not in path.parts else f"{number}.png"))
    options = dataset_options({"source": "bmad", "root": str(bmad), "masks": False}).reading()
    frame = read_manifest(prepare_dataset("x", options, tmp_path / "out"))
    assert frame["subject"].is_unique
    assert "does not fit 8 of 8 names" in caplog.text


def test_folders_beside_the_splits_are_named(tmp_path, caplog):
    for name in ("train", "valid", "test", "extra", ".hidden"):
        (tmp_path / name).mkdir()
    say_beside(tmp_path, ("train", "valid", "test"))
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{tmp_path}: left out are 1 folder (such as extra); read are test, train, valid."
    )


@pytest.fixture
def volumes(tmp_path):
    """A volume of 4 slices with an empty segmentation in each split."""
    for seed, place in enumerate(("train/a", "valid/b", "test/c")):
        values = np.random.default_rng(seed).integers(1, 900, (16, 16, 4)).astype(np.int16)
        for suffix, content in (("_t1", values), ("_seg", np.zeros_like(values))):
            path = tmp_path / f"v/{place}{suffix}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(content, np.eye(4)), path)
    return tmp_path / "v"


def test_hidden_folders_and_litter_among_volumes(tmp_path, volumes, caplog):
    for split in ("train", "test"):
        (volumes / split / ".trash").mkdir()
        (volumes / split / "._a_t1.nii.gz").write_bytes(b"\0\5\x16\7")
    (volumes / "scratch").mkdir()
    frame = prepare(tmp_path, "nifti", volumes, min_foreground=0.0)
    assert set(frame["subject"]) == {"a", "b", "c"}
    (said,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert "left out are 1 folder (such as scratch)" in said


def test_other_files_beside_volumes_are_said_and_segmentations_are_not(tmp_path, volumes, caplog):
    (volumes / "train/a_t1.json").write_text("{}")
    (volumes / "train/a_t2.nii.gz").write_bytes(b"")
    prepare(tmp_path, "nifti", volumes, min_foreground=0.0)
    (said,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert "1 file of another format (such as a_t1.json); 1 volume of another name (such as a_t2.nii.gz)." in said


def test_volumes_with_suffixes_in_capitals_and_without_an_image_suffix(tmp_path, volumes):
    for path in volumes.rglob("*_t1.nii.gz"):
        path.rename(path.with_name(path.name.replace("_t1.nii.gz", ".nii.gz").upper()))
    for path in volumes.rglob("*_seg.nii.gz"):
        path.rename(path.with_name(path.name.replace("_seg", "_SEG").upper()))
    frame = prepare(tmp_path, "nifti", volumes, min_foreground=0.0, image_suffix="", mask_suffix="_SEG")
    assert set(frame["subject"]) == {"A", "B", "C"}
    assert set(frame.loc[frame["split"] == "test", "label"]) == {"normal"}
