"""`dinodp evaluate --boxes`: lesions that are boxes, as a table and in the layout of COCO."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from dinodp.cli import main
from dinodp.datasets.boxes import Box

SHAPE = (20, 30)
TABLE = "image,x,y,width,height\na.png,2,3,4,5\na.png,4,5,6,4\nb.png,10,1,3,2\nc.png,,,,\nd.png,0,0,2,2\n"
BOXES = {"a": [(2, 3, 4, 5), (4, 5, 6, 4)], "b": [(10, 1, 3, 2)], "c": [], "d": [(0, 0, 2, 2)]}


@pytest.fixture
def folder(tmp_path):
    """Four maps: both boxes of a are found (they overlap), that of b is found, that of d missed; c is healthy."""
    (tmp_path / "maps").mkdir()
    for name in BOXES:
        scores = np.zeros(SHAPE)
        if name == "a":
            scores[4, 3] = scores[8, 9] = 9
        if name == "b":
            scores[1, 12] = 8
        if name == "c":
            scores[15, 15] = 5
        np.save(tmp_path / f"maps/{name}.npy", scores + np.random.default_rng(ord(name)).uniform(0, 0.1, SHAPE))
    return tmp_path


def coco(**sizes):
    """The same boxes in the layout of COCO."""
    named = [
        {"id": number, "file_name": f"{name}.png", "height": sizes.get(name, SHAPE)[0], "width": SHAPE[1]}
        for number, name in enumerate(BOXES)
    ]
    found = [
        {"image_id": number, "bbox": list(box)} for number, boxes in enumerate(BOXES.values()) for box in boxes
    ]  # fmt: skip
    return json.dumps({"images": named, "annotations": found})


def evaluate(folder, content, *options, name="boxes.csv", maps="maps"):
    (folder / name).write_text(content)
    out = folder / "out.csv"
    given = ["evaluate", str(folder / maps), "--boxes", str(folder / name), "--out", str(out), "--resamples", "20"]
    return main([*given, *options]), out


@pytest.mark.parametrize(("name", "content"), [("boxes.csv", TABLE), ("boxes.json", coco())])
def test_boxes_are_hit_and_images_are_ranked(folder, name, content, capsys):
    status, out = evaluate(folder, content, "--froc", str(folder / "froc.csv"), name=name)
    assert status == 0
    table = pd.read_csv(out, keep_default_na=False, na_values=[""])
    assert set(table["masks"]) == {"boxes"}
    assert not table["metric"].str.startswith(("pixel", "aupro", "dice", "max_dice", "prevalence")).any()
    values = table[table["over"] == "lesions"].set_index("metric")["value"]
    highest = [float(np.load(folder / f"maps/{image}.npy").max()) for image in BOXES]
    labels = [bool(boxes) for boxes in BOXES.values()]
    row = table[(table["metric"] == "scan_auroc") & (table["score"] == "max")].iloc[0]
    assert row["value"] == pytest.approx(roc_auc_score(labels, highest))
    assert set(values.index) == {f"lesion_sensitivity_{limit}" for limit in (1, 2, 4)}
    curve = pd.read_csv(folder / "froc.csv")
    at = curve[(curve["threshold"] > 0.2) & (curve["threshold"] < 5)]
    assert (at["sensitivity"] == 0.75).all()  # three of four boxes: the two of a overlap, and are two
    assert (at["false_regions"] == 0.25).all()  # that of the healthy image
    assert "Boxes do not say which pixels are lesion" in capsys.readouterr().out


def test_thresholds_and_healthy_shares_stay(folder):
    (folder / "healthy").mkdir()
    np.save(folder / "healthy/h.npy", np.random.default_rng(0).uniform(0, 0.1, SHAPE))
    status, out = evaluate(folder, TABLE, "--healthy", str(folder / "healthy"))
    assert status == 0
    table = pd.read_csv(out).set_index("metric")
    assert table.loc["threshold_fpr01", "value"] == pytest.approx(0.099, abs=0.002)
    assert table.loc["healthy_share_above_fpr01", "value"] < 0.05


def test_models_are_compared_on_boxes(folder):
    (folder / "boxes.csv").write_text(TABLE)
    (folder / "others").mkdir()
    for name in BOXES:
        np.save(folder / f"others/{name}.npy", np.random.default_rng(ord(name)).uniform(0, 1, SHAPE))
    given = ["compare", str(folder / "maps"), str(folder / "others"), "--boxes", str(folder / "boxes.csv")]
    assert main([*given, "--resamples", "20", "--out", str(folder / "c.csv")]) == 0
    table = pd.read_csv(folder / "c.csv").set_index("metric")
    assert table.loc["lesion_sensitivity_1", "first"] >= 0.75


def test_images_without_a_map_are_named(folder, capsys):
    assert evaluate(folder, TABLE + "e.png,1,1,2,2\n")[0] == 0
    assert "Not used, as there is no map of them: 1 of what" in capsys.readouterr().out


def test_images_that_the_file_lacks_are_healthy_or_skipped(folder):
    short = TABLE.replace("c.png,,,,\n", "")
    for choice, count in (("healthy", 4), ("skip", 3)):
        status, out = evaluate(folder, short, "--without-mask", choice)
        assert status == 0
        found = pd.read_csv(out)["metric"].str.startswith("scan_auroc").any()
        assert found == (count == 4)  # without a healthy image there is no ranking


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        (Box(0, 0, 1, 1), (slice(0, 1), slice(0, 1))),
        (Box(0.6, 0, 1, 2), (slice(0, 2), slice(1, 2))),  # the centre of a pixel decides
        (Box(0.4, 0.5, 2, 1), (slice(0, 1), slice(0, 2))),
    ],
)
def test_a_pixel_belongs_to_the_box_in_which_its_centre_is(box, pixels):
    assert box.pixels() == pixels


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("b.csv", "image,x,y\na,1,2\n", "lacks width, height: it needs image, x, y, width and height"),
        ("b.csv", TABLE.replace("2,3,4,5", "2,3,0,5"), "the last two above 0"),
        ("b.csv", TABLE.replace("2,3,4,5", "2,,4,5"), "four numbers are needed"),
        ("b.csv", TABLE.replace("2,3,4,5", "2,x,4,5"), "four numbers are needed"),
        ("b.csv", TABLE.replace("2,3,4,5", "-9,3,4,5"), "is not within its 20 x 30 pixels"),
        ("b.csv", TABLE.replace("2,3,4,5", "80,3,4,5"), "is not within its 20 x 30 pixels"),
        ("b.csv", TABLE.replace("c.png,,,,\n", ""), "1 of 4 maps are not named in"),
        ("b.csv", "image,x,y,width,height\na,,,,\nb,,,,\nc,,,,\nd,,,,\n", "None of the 4 images has a box"),
        ("b.json", "{}", "is not in the layout of COCO (KeyError: 'images')"),
        ("b.json", coco(a=(21, 30)), "says that a has 21 x 30 pixels, but its map has 20 x 30"),
    ],
    ids=["columns", "no width", "empty", "text", "left", "right", "missing", "no box", "coco", "size"],
)
def test_mistakes(folder, name, content, sentence, capsys):
    assert evaluate(folder, content, name=name)[0] == 1
    assert sentence in capsys.readouterr().err


def test_more_mistakes(folder, capsys):
    assert main(["evaluate", str(folder / "maps"), "--boxes", str(folder / "none.csv")]) == 1
    assert "There is no file of boxes" in capsys.readouterr().err
    assert evaluate(folder, TABLE, "--size", "map")[0] == 1
    assert "--size is of masks: boxes are in pixels of the maps." in capsys.readouterr().err
    (folder / "volumes").mkdir()
    np.save(folder / "volumes/a.npy", np.zeros((3, *SHAPE)))
    assert evaluate(folder, TABLE, maps="volumes")[0] == 1
    assert "The map of a is a volume: boxes are of images." in capsys.readouterr().err
