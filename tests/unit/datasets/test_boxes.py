"""Boxes in the place of masks: from a file of boxes to the manifest."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dinodp.datasets.boxes import Box, boxes_of, boxes_text
from dinodp.datasets.manifest import BOXES, manifest_digest, read_manifest
from dinodp.datasets.sources import dataset_options, prepare_dataset
from dinodp.errors import InputError
from dinodp.evaluation.test_split import BoxedImages, has_boxes, has_pixel_labels

TABLE = """image,x,y,width,height
test/spot/0.png,1,2,3,4
test/spot/0.png,0.5,0,2,1
spot/1.png,5,5,1,1
valid/good/0,,,,
"""


@pytest.fixture
def root(tmp_path):
    places = [("train/good", 2), ("valid/good", 1), ("test/good", 2), ("test/spot", 2)]
    for number, (place, count) in enumerate(places):
        (tmp_path / "data" / place).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((10, 12), 20 * number + index, np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"data/{place}/{index}.png")
    return tmp_path / "data"


def prepared(root, content, name="boxes.csv"):
    (root.parent / name).write_text(content)
    entry = {"source": "image_folder", "root": str(root), "boxes": str(root.parent / name)}
    return read_manifest(prepare_dataset("x", entry, root.parent / "out"))


def coco(**changed):
    images = [{"id": index, "file_name": f"test/spot/{index}.png", "height": 10, "width": 12} for index in (0, 1)]
    boxes = [{"image_id": 0, "bbox": [1, 2, 3, 4]}, {"image_id": 0, "bbox": [0.5, 0, 2, 1]}]
    images[0] |= changed
    return json.dumps({"images": images, "annotations": [*boxes, {"image_id": 1, "bbox": [5, 5, 1, 1]}]})


@pytest.mark.parametrize(("name", "content"), [("boxes.csv", TABLE), ("boxes.json", coco())])
def test_the_manifest_holds_the_boxes_of_each_image(root, name, content):
    frame = prepared(root, content, name)
    test = frame[(frame["split"] == "test") & (frame["label"] == "anomalous")]
    assert test[BOXES].tolist() == ["1 2 3 4; 0.5 0 2 1", "5 5 1 1"]
    assert (frame[frame["label"] == "normal"][BOXES] == "").all()
    assert has_boxes(frame)
    assert not has_pixel_labels(frame)
    (inside, parts), (_, second) = BoxedImages(test)
    expected = np.zeros((10, 12), bool)
    expected[2:6, 1:4] = expected[0, 0:2] = True  # a pixel whose centre is on the left edge belongs to the box
    assert (inside == expected).all()
    assert parts == [(slice(2, 6), slice(1, 4)), (slice(0, 1), slice(0, 2))]
    assert second == [(slice(5, 6), slice(5, 6))]


def test_boxes_decide_the_digest_and_a_data_set_without_any_has_the_same_file_as_ever(root):
    first, second = prepared(root, TABLE), prepared(root, TABLE.replace("5,5,1,1", "5,5,2,1"))
    assert manifest_digest(first) != manifest_digest(second)
    entry = {"source": "image_folder", "root": str(root), "masks": False}
    path = prepare_dataset("x", entry, root.parent / "none")
    assert BOXES not in pd.read_csv(path)
    assert manifest_digest(read_manifest(path)) == manifest_digest(read_manifest(path).drop(columns=BOXES))


def test_the_file_of_boxes_is_watched(root):
    entry = {"source": "image_folder", "root": str(root), "boxes": "some.csv"}
    assert dataset_options(entry).places() == [str(root), "some.csv"]


def test_a_cell_comes_back():
    boxes = [Box(1, 2.25, 3, 4), Box(0.1, 0, 1e3, 7)]
    assert boxes_of(boxes_text(boxes)) == boxes
    assert boxes_of("") == []
    for text in ("1 2 3", "a b c d", "1 2 3 4;"):
        with pytest.raises(InputError, match="four numbers each are needed, between semicolons"):
            boxes_of(text)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("b.csv", TABLE.replace("spot/1.png,5,5,1,1\n", ""), "the anomalous image .*1.png has no box in"),
        ("b.csv", TABLE + "test/good/0.png,1,1,1,1\n", "the normal image .*good/0.png has a box in"),
        ("b.csv", TABLE.replace("1,2,3,4", "20,2,3,4"), "is not within its 10 x 12 pixels"),
        ("b.csv", TABLE.replace("1,2,3,4", "1,2,0,4"), "the last two above 0"),
        ("b.csv", TABLE.replace("valid/good/0,,,,", "0,,,,"), "names 0, which .* and .* are both called"),
        ("b.json", coco(height=11), "says that test__spot__0 has 11 x 12 pixels, but its file has 10 x 12"),
        ("b.json", "{", "b.json"),
    ],
    ids=["no box", "normal", "outside", "width", "two of a name", "size", "damaged"],
)
def test_mistakes(root, name, content, sentence):
    with pytest.raises(InputError, match=sentence):
        prepared(root, content, name)


def test_no_file_is_a_sentence(root):
    entry = {"source": "image_folder", "root": str(root), "boxes": str(root / "none.csv")}
    with pytest.raises(InputError, match="There is no file of boxes"):
        prepare_dataset("x", entry, root.parent / "out")
