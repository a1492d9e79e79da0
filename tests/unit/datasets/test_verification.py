"""What verification finds in small copies that were damaged on purpose."""

import numpy as np
import pytest
from PIL import Image

from dinodp.datasets.manifest import image_row, make_manifest
from dinodp.datasets.verification import require_accepted, verify_dataset, write_verification
from dinodp.errors import InputError
from dinodp.jobs.origin import origin_of, read_result

EXPECT = {
    "counts": {"train": {"normal": 3}, "valid": {"normal": 2}, "test": {"normal": 2, "anomalous": 2}},
    "size": [8, 8],
    "mask_values": [0, 255],
}


@pytest.fixture
def rows(tmp_path):
    """Rows of a sound data set, to be changed by a test before they become a manifest."""
    labels = (
        [("train", "normal")] * 3 + [("valid", "normal")] * 2 + [("test", "normal")] * 2 + [("test", "anomalous")] * 2
    )
    result = []
    for index, (split, label) in enumerate(labels):
        image, mask = tmp_path / f"{index}.png", tmp_path / f"{index}_mask.png"
        Image.fromarray(np.full((8, 8), 10 * index, dtype=np.uint8)).save(image)
        content = np.zeros((8, 8), dtype=np.uint8)
        content[:2, :4] = 255 if label == "anomalous" else 0
        Image.fromarray(content).save(mask)
        result.append({"split": split, "label": label, "image": image, "mask": mask, "subject": f"s{index}"})
    return result


def verify(rows, expect=EXPECT):
    return verify_dataset(make_manifest(image_row(**row) for row in rows), expect, threads=2)


def test_a_sound_copy_has_no_deviation(rows):
    report, checksums = verify(rows)
    assert report["deviations"] == {}
    assert report["counts"] == {"train": {"normal": 3}, "valid": {"normal": 2}, "test": {"normal": 2, "anomalous": 2}}
    assert report["prevalence"] == {"gt0": pytest.approx(16 / 256), "eq255": pytest.approx(16 / 256)}
    assert report["mask_values"] == {"0": 9, "255": 2}
    assert report["sizes"] == {"8x8": 9}
    assert len(checksums) == 9
    assert checksums["mask_sha256"].str.len().eq(64).all()


def paint(path, value):
    Image.fromarray(np.full((8, 8), value, dtype=np.uint8)).save(path)


def truncate(rows):
    noise = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(noise).save(rows[0]["image"])
    rows[0]["image"].write_bytes(rows[0]["image"].read_bytes()[:-40])


def other_size(rows):
    for key in ("image", "mask"):
        Image.fromarray(np.zeros((8, 9), dtype=np.uint8)).save(rows[0][key])


BROKEN = {
    "an image too few": (lambda rows: rows.pop(0), "counts", "split train holds 2 normal, published are 3 normal"),
    "an image in the other class": (
        lambda rows: rows[5].update(label="anomalous"),
        "other_class_1",
        "split test holds 1 normal, 3 anomalous, published are 2 normal, 2 anomalous",
    ),
    "truncated image": (truncate, "unreadable_image", "1 files cannot be read: .*0.png"),
    "other size": (other_size, "image_size", "images of 1 8x9 pixels, published are 8x8"),
    "other mask values": (lambda rows: paint(rows[7]["mask"], 77), "mask_values", "masks hold the values 77"),
    "normal image with a lesion": (
        lambda rows: paint(rows[5]["mask"], 255),
        "normal_with_lesion",
        "1 normal images have a mask that is not empty: .*5.png",
    ),
    "the same image in two splits": (
        lambda rows: rows[0]["image"].write_bytes(rows[5]["image"].read_bytes()),
        "identical_across_splits",
        "1 images are the same in two splits: .*0.png, .*5.png",
    ),
    "a patient in two splits": (
        lambda rows: rows[0].update(subject="s5"),
        "subject_in_two_splits",
        "1 subjects occur in two splits: .*0.png, .*5.png",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_is_named(rows, kind):
    break_it, name, sentence = BROKEN[kind]
    break_it(rows)
    report, _ = verify(rows)
    assert list(report["deviations"]) == [name]
    with pytest.raises(InputError, match=f"Data set x: {name}: .*{sentence}.*accept: .{name}. in its catalog entry"):
        require_accepted("x", report, [], "report.json")
    assert require_accepted("x", report, [name], "report.json").startswith(f"{name}: ")


def test_the_known_deviation_of_resc_is_explained(rows):
    expect = {"counts": {"test": {"normal": 27, "anomalous": -23}}}
    report, _ = verify(rows, expect)
    assert list(report["deviations"]) == ["other_class_25"]
    assert "older copies of RESC have 25 images in the other class" in report["deviations"]["other_class_25"]


def test_duplicates_within_a_split_and_empty_masks_are_counted(rows):
    rows[1]["image"].write_bytes(rows[0]["image"].read_bytes())
    paint(rows[8]["mask"], 0)
    report, _ = verify(rows)
    assert report["identical_within_split"] == 1
    assert report["anomalous_with_empty_mask"] == 1
    assert list(report["deviations"]) == ["identical_within_split"]
    assert "1 images are the same as another of their split: " in report["deviations"]["identical_within_split"]


def test_mask_rules_differ_side_by_side(rows):
    content = np.zeros((8, 8), dtype=np.uint8)
    content[0, :4], content[1, :] = 255, 122
    Image.fromarray(content).save(rows[7]["mask"])
    report, _ = verify(rows, {})
    assert report["prevalence"] == {"gt0": pytest.approx(20 / 256), "eq255": pytest.approx(12 / 256)}


def test_without_masks_there_is_no_prevalence(rows, tmp_path):
    report, checksums = verify([{**row, "mask": None} for row in rows], {})
    assert report["prevalence"] == {}
    paths = tmp_path / "r.json", tmp_path / "r.md", tmp_path / "c.csv"
    write_verification("x", report, checksums, *paths, made_from={"manifest": "0"})
    assert "Anomalous share of the test pixels: no masks" in (tmp_path / "r.md").read_text()
    written = read_result(tmp_path / "r.json")
    assert origin_of(written).made_from == {"manifest": "0"}
    assert {**report, "origin": written["origin"]} == written


def stored_in_16(rows, shift, split=None):
    for index, row in enumerate(rows):
        if split in (None, row["split"]):
            values = np.random.default_rng(index).integers(0, 65536, (8, 8)).astype(np.uint16) >> shift
            values[0, 0] = 65535 >> shift
            Image.fromarray(values).save(row["image"])


@pytest.mark.parametrize(("shift", "used"), [(2, 14), (4, 12), (8, 8)])
def test_bits_that_are_never_used_are_a_deviation(rows, shift, used):
    stored_in_16(rows, shift)
    report, _ = verify(rows)
    assert list(report["deviations"]) == ["unused_range"]
    said = report["deviations"]["unused_range"]
    assert f"of 3 train images is {100 / 2**shift:.2f}% of their 16 bits, as of {used} bits stored in 16" in said
    assert all(f"{split} images is" in said for split in ("train", "valid", "test"))


def test_one_split_of_fewer_bits_is_named(rows):
    stored_in_16(rows, 0)
    stored_in_16(rows, 4, "test")
    report, _ = verify(rows)
    assert "of 4 test images" in report["deviations"]["unused_range"]
    assert "train" not in report["deviations"]["unused_range"]


def test_16_bits_that_are_used_are_sound(rows):
    stored_in_16(rows, 1)
    assert verify(rows)[0]["deviations"] == {}


def test_the_same_picture_in_another_format_is_a_copy(rows):
    for row, twin in ((rows[0], rows[1]), (rows[3], rows[6])):
        twin["image"] = row["image"].with_suffix(".tif")
        Image.open(row["image"]).save(twin["image"])
    report, _ = verify(rows)
    assert set(report["deviations"]) == {"identical_within_split", "identical_across_splits"}


def test_a_map_of_probabilities_as_mask_stops_the_run(rows):
    Image.fromarray(np.arange(100, 164, dtype=np.uint8).reshape(8, 8)).save(rows[7]["mask"])
    report, _ = verify(rows)
    assert "The mask" in report["deviations"]["unreadable_image"]
    assert "or probabilities" in report["deviations"]["unreadable_image"]


def test_inverted_masks_are_a_deviation(rows):
    for row in rows[7:]:
        Image.fromarray(255 - np.asarray(Image.open(row["mask"]))).save(row["mask"])
    report, _ = verify(rows)
    assert report["deviations"] == {
        "mostly_lesion": "the masks of 2 anomalous images cover 88% of them: are they inverted?"
    }
