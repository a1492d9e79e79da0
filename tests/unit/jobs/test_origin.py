"""Text results say what they were made from and prove that they are whole."""

import json

import pandas as pd
import pytest
from made_files import flip

from dinodp.errors import InputError
from dinodp.jobs.origin import (
    name_of,
    origin_of,
    origin_path,
    read_result,
    read_table,
    read_text,
    require_made_from,
    require_unchanged,
    sha256,
    table_origin,
    write_result,
    write_table,
)

MADE_BY = "dinodp.evaluation.collecting"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "t.csv"
    write_table(path, "a,b\n" + "1,2\n" * 10, MADE_BY, {"manifest": "12"})
    return path


@pytest.fixture
def result(tmp_path):
    path = tmp_path / "r.json"
    write_result(path, {"metrics": {"auroc": 0.1 + 0.2, "dice": float("nan")}, "rule": ("a", "b")}, MADE_BY, {"x": "1"})
    return path


def test_a_table_comes_back_and_everybody_can_read_it(table):
    assert table_origin(table).made_from == {"manifest": "12"}
    assert read_table(table).equals(pd.read_csv(table))
    assert len(read_table(table)) == 10


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2]),
    "cut at a row": lambda path: path.write_text("".join(path.read_text().splitlines(True)[:-3])),
    "emptied": lambda path: path.write_bytes(b""),
    "zeroed": lambda path: path.write_bytes(bytes(len(path.read_bytes()))),
    "flipped": lambda path: flip(path, -2),
    "more rows": lambda path: path.write_text(path.read_text() + "1,2\n"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_table_that_was_changed_is_refused(table, damage):
    DAMAGES[damage](table)
    with pytest.raises(InputError, match=r"t\.csv is not as it was written: .*delete it and run again"):
        read_table(table)


@pytest.mark.parametrize("damage", ["cut", "emptied", "zeroed"])
def test_an_origin_that_was_damaged_is_refused(table, damage):
    DAMAGES[damage](origin_path(table))
    with pytest.raises(InputError, match=r"t\.csv\.origin\.json is not valid JSON"):
        read_table(table)


def test_a_text_beside_its_origin_comes_back(table):
    assert read_text(table) == table.read_text()
    table.write_text("")
    with pytest.raises(InputError, match=r"t\.csv is not as it was written"):
        read_text(table)


@pytest.mark.parametrize("content", ["{}", '{"content_sha256": 1, "library_digest": "", "made_from": []}', "[]"])
def test_an_origin_that_says_nothing_is_refused(table, content):
    origin_path(table).write_text(content)
    with pytest.raises(InputError, match=r"t\.csv\.origin\.json .*delete it and run again"):
        read_table(table)


def test_a_table_without_origin_is_refused(table):
    origin_path(table).unlink()
    with pytest.raises(InputError, match=r"There is no t\.csv\.origin\.json beside .*t\.csv"):
        read_table(table)
    table.unlink()
    with pytest.raises(InputError, match="There is no file"):
        read_table(table)


def test_a_result_comes_back(result):
    content = read_result(result)
    assert content["metrics"]["auroc"] == 0.1 + 0.2
    assert origin_of(content).made_from == {"x": "1"}


def test_every_edit_of_a_result_is_refused(result):
    text = result.read_text()
    edited = json.loads(text)
    edited["metrics"]["auroc"] = 0.9
    edited_origin = json.loads(text)
    del edited_origin["origin"]["made_from"]
    texts = [json.dumps(edited), json.dumps(edited_origin), "{}", text[: len(text) // 2], text.replace("3", "4")]
    for content in texts:
        result.write_text(content)
        with pytest.raises(InputError, match=r"r\.json .*delete it and run again"):
            read_result(result)


def test_every_flipped_bit_of_a_result_is_refused_or_says_the_same(result):
    """Blanks between values say nothing."""
    whole, content, said = result.read_bytes(), read_result(result), []
    for place in range(len(whole)):
        flip(result, place, place % 8)
        try:
            found = read_result(result)
        except InputError as error:
            said.append(str(error))
        else:
            assert str(found["metrics"]) == str(content["metrics"])
        result.write_bytes(whole)
    assert said
    assert all("r.json" in sentence for sentence in said)


def test_the_input_of_a_file_is_compared_by_its_digest(tmp_path):
    path = tmp_path / "scores.h5"
    require_made_from(path, {"model": "1"}, "model", "1", "model.h5")
    with pytest.raises(InputError, match=r"scores\.h5 was not made from model\.h5: .*another run.*delete it"):
        require_made_from(path, {"model": "1"}, "model", "2", "model.h5")
    with pytest.raises(InputError, match=r"scores\.h5 does not say from which model it was made"):
        require_made_from(path, {}, "model", "2", "model.h5")


def test_a_file_that_the_manifest_names_is_compared(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"image")
    require_unchanged(path, sha256(b"image"))
    flip(path, 0)
    with pytest.raises(InputError, match=r"a\.png was changed after the manifest was made: .*forcerun prepare_dataset"):
        require_unchanged(path, sha256(b"image"))
    path.unlink()
    with pytest.raises(InputError, match=r"a\.png cannot be read \(No such file or directory\), but the manifest"):
        require_unchanged(path, sha256(b"image"))


def test_an_input_is_named_by_its_place_among_the_results(tmp_path):
    assert name_of(tmp_path / "results/metrics/d/e/m/seed-0.json") == "metrics/d/e/m/seed-0.json"
    assert name_of(tmp_path / "results/a/results/b.csv") == "b.csv"
    assert name_of(tmp_path / "b.csv") == "b.csv"
