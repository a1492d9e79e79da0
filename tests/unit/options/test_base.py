"""Entries become typed options, or one sentence."""

from typing import Literal

import pytest

from dinodp.errors import InputError
from dinodp.options.archive import ArchiveOptions
from dinodp.options.base import Options, allowed_values, option, unit_of
from dinodp.options.choices import FromOne
from dinodp.options.run import RunOptions


class Inner(Options):
    a: int = option(1, "An integer.")


class Entry(Options):
    share: float = option(0.5, "A share.", gt=0, le=1)
    count: int = option(3, "A number.", unit="images", ge=1, changes_result=False)
    size: tuple[FromOne, FromOne] | None = option(None, "Height and width.")
    kinds: tuple[Literal["x", "y"], ...] = option(("x",), "Kinds.", min_length=1)
    flag: bool = option(True, "A flag.")
    name: str = option(..., "A name.", pattern="^[a-z]+$")
    inner: Inner | None = option(None, "Options inside.")
    table: dict[str, Inner] = option({}, "Options by name.")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"nmae": 1}, "x: unknown key 'nmae'; it has share, count, size, kinds, flag, name, inner, table."),
        ({"inner": {"b": 1}}, "x.inner: unknown key 'b'; it has a."),
        ({"table": {"one": {"b": 1}}}, "x.table.one: unknown key 'b'; it has a."),
        ({"name": None}, "x.name: the key is missing."),
        ({"name": "A"}, "x.name: 'A' does not match ^[a-z]+$."),
        ({"name": 3}, "x.name: 3 is no text."),
        ({"share": "1e-6"}, "x.share: '1e-6' is no number; YAML reads 1e-6 as a text: write 1.0e-6."),
        ({"share": True}, "x.share: True is no number."),
        ({"share": "half"}, "x.share: 'half' is no number."),
        ({"share": 0}, "x.share: 0 is not above 0.0."),
        ({"share": 2}, "x.share: 2 is above the largest allowed, 1.0."),
        ({"share": float("nan")}, "x.share: nan is not finite."),
        ({"count": True}, "x.count: True is no integer."),
        ({"count": 2.5}, "x.count: 2.5 is no integer."),
        ({"count": 0}, "x.count: 0 is below the least allowed, 1."),
        ({"flag": "yes"}, "x.flag: 'yes' is neither true nor false."),
        ({"flag": 1}, "x.flag: 1 is neither true nor false."),
        ({"size": 3}, "x.size: 3 is no list."),
        ({"size": [3, 0]}, "x.size.1: 0 is below the least allowed, 1."),
        ({"size": [1, 2, 3]}, "x.size: [1, 2, 3] has too many values; at most 2 may be given."),
        ({"size": [1]}, "x.size.1: the key is missing."),
        ({"kinds": []}, "x.kinds: [] has too few values; at least 1 must be given."),
        ({"kinds": ["z"]}, "x.kinds.0: 'z' is not allowed; choose 'x' or 'y'."),
        ({"inner": 3}, "x.inner: 3 is no mapping of keys to values."),
        ({"table": 3}, "x.table: 3 is no mapping."),
    ],
)
def test_what_is_wrong_is_one_sentence(change, sentence):
    with pytest.raises(InputError) as error:
        Entry.read({"name": "a", **change}, "x")
    assert str(error.value) == sentence


@pytest.mark.parametrize("content", [None, 3, [1], "text"])
def test_an_entry_is_a_mapping(content):
    with pytest.raises(InputError, match=r"^x: .* is no mapping of keys to values\.$"):
        Entry.read(content, "x")


def test_integers_are_numbers_and_null_is_the_default():
    entry = Entry.read({"name": "a", "share": 1, "count": None, "inner": {"a": None}}, "x")
    assert (entry.share, entry.count, entry.inner) == (1.0, 3, Inner())


def test_plain_values_are_read_again():
    entry = Entry.read({"name": "a", "size": [2, 3], "table": {"one": {"a": 4}}}, "x")
    assert entry.plain()["size"] == [2, 3]
    assert "inner" not in entry.plain()
    assert Entry.read(entry.plain(), "x") == entry
    assert "count" not in entry.decisive()


def test_options_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Inner().a = 2


def test_fields_describe_themselves():
    fields = Entry.model_fields
    assert unit_of(fields["count"]) == "images"
    assert allowed_values(fields["count"]) == "integer ≥ 1"
    assert allowed_values(fields["share"]) == "number > 0 ≤ 1"
    assert allowed_values(fields["size"]) == "[integer ≥ 1, integer ≥ 1]"
    assert allowed_values(fields["kinds"]) == "list of `x` \\| `y`"
    assert allowed_values(fields["table"]) == "mapping of names to mapping of `a`"


def test_an_archive_can_be_had():
    with pytest.raises(InputError, match=r"^archives\.a: it needs a url, or instructions where no program may"):
        ArchiveOptions.read({"file": "a.zip"}, "archives.a")
    with pytest.raises(InputError, match=r"^archives\.a\.sha256: 'abc' does not match"):
        ArchiveOptions.read({"file": "a.zip", "url": "https://x", "sha256": "abc"}, "archives.a")


def test_every_key_is_described():
    for kind in (RunOptions, ArchiveOptions):
        assert all(field.description for field in kind.model_fields.values())


def test_an_entry_that_holds_itself_or_has_odd_keys_is_refused():
    circle: dict[str, object] = {"name": "a"}
    circle["inner"] = circle
    many: list[object] = []
    many.append(many)
    for content in (circle, {"name": "a", "kinds": many}, {"name": "a", "table": {(1, 2): {}}}):
        with pytest.raises(InputError, match=r"^x: a part of it holds itself, or has keys that are no texts\.$"):
            Entry.read(content, "x")
