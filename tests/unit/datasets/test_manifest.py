
import numpy as np
import pytest
from made_files import write_csv
from PIL import Image

from dinodp.datasets.manifest import image_row, make_manifest, read_manifest, select, write_manifest
from dinodp.errors import InputError


def save(path, size=(6, 4), value=0):
    Image.fromarray(np.full(size, value, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def frame(tmp_path):
    splits = [("train", "normal"), ("train", "normal"), ("valid", "normal"), ("test", "normal"), ("test", "anomalous")]
    return make_manifest(
        image_row(split, label, save(tmp_path / f"{index}.png", value=index), subject=f"s{index}")
        for index, (split, label) in enumerate(splits)
    )


def test_comes_back_with_absolute_paths(tmp_path, frame):
    write_manifest(frame, tmp_path / "manifest.csv")
    assert str(tmp_path) not in (tmp_path / "manifest.csv").read_text()
    read = read_manifest(tmp_path / "manifest.csv")
    assert read["image"].tolist() == frame["image"].tolist()
    assert read["subject"].tolist() == ["s0", "s1", "s2", "s3", "s4"]
    assert read[["height", "width"]].to_numpy().tolist() == [[6, 4]] * 5
    assert select(read, "test", "anomalous")["subject"].tolist() == ["s4"]


def test_names_that_look_like_numbers_are_names(tmp_path, frame):
    """As those of files without a suffix may."""
    numbered = frame.assign(image=[str(tmp_path / f"00{index}") for index in range(5)])
    write_manifest(numbered, tmp_path / "manifest.csv")
    assert read_manifest(tmp_path / "manifest.csv")["image"].tolist() == numbered["image"].tolist()


def test_row_order_does_not_depend_on_the_order_of_finding(frame):
    assert make_manifest(frame.iloc[::-1].to_dict("records")).equals(frame)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f[f["split"] != "valid"], "The valid split of .* is empty"),
        (lambda f: f[f["split"] != "test"], "The test split of .* is empty"),
        (lambda f: f.assign(split=f["split"].replace("valid", "val")), "has the split 'val'; allowed are train"),
        (lambda f: f.assign(label=f["label"].replace("anomalous", "bad")), "has the label 'bad'"),
        (lambda f: f.assign(label="anomalous"), "train split of .* holds anomalous images"),
        (lambda f: f.assign(image=f["image"].iloc[0]), "names the image .*0.png twice"),
        (lambda f: f.drop(columns="mask"), "lacks the columns mask"),
        (
            lambda f: f.assign(label=f["label"].mask(f["split"] == "valid", "anomalous")),
            "valid split of .* holds no normal image",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path, frame, change, sentence):
    write_csv(change(frame), tmp_path / "manifest.csv")
    with pytest.raises(InputError, match=sentence):
        read_manifest(tmp_path / "manifest.csv")


def test_a_missing_manifest_is_said(tmp_path):
    with pytest.raises(InputError, match="There is no manifest"):
        read_manifest(tmp_path / "manifest.csv")


def test_a_mask_of_another_size_is_refused(tmp_path):
    image, mask = save(tmp_path / "a.png"), save(tmp_path / "b.png", (5, 4))
    with pytest.raises(InputError, match=r"mask .*b.png has 5 x 4 pixels, but its image .*a.png has 6 x 4"):
        image_row("test", "anomalous", image, mask)


def test_an_unreadable_image_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"a.png"):
        image_row("test", "normal", tmp_path / "a.png")
    with pytest.raises(InputError, match=r"no.png"):
        image_row("test", "normal", tmp_path / "no.png")
