"""HDF5 and JSON with what this project never writes: refused in one sentence, before anything of it is read."""

import json
import resource
import subprocess
import sys
from contextlib import suppress
from functools import partial

import h5py
import numpy as np
import pytest

from dinodp import store
from dinodp.errors import InputError
from dinodp.jobs.foreign_json import DEEPEST, parsed_json
from dinodp.jobs.strangers import require_plain as require

require_plain = partial(require, require_whole=lambda path: None)  # as a stranger may make digests that fit


def nest(file):
    file["state/inner"] = file["state"]  # a group within itself, without an end
    file["state/other"] = file["state"]


def virtual(source):
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource(source, "values", (3,))
    return layout


STRANGE = {
    "a soft link at /x": lambda file: file.__setitem__("x", h5py.SoftLink("/state")),
    "a link to another file at /x": lambda file: file.__setitem__("x", h5py.ExternalLink("other.h5", "/")),
    "values in another file (external storage) at /x": lambda file: file.create_dataset(
        "x", (64,), "uint8", external=[("/etc/passwd", 0, 64)]
    ),
    "a virtual data set at /x": lambda file: file.create_virtual_dataset("x", virtual("other.h5")),
    "compressed values at /x": lambda file: file.create_dataset("x", data=np.zeros(10**6), compression="gzip"),
    "declares 8000000000000 bytes for /x, but holds 0": lambda file: file.create_dataset("x", (10**12,), "float64"),
    "declares 8000000000 bytes for /x": lambda file: file.create_dataset("x", (10**9,), "float64", chunks=(10**4,)),
    "values that are no plain numbers at /x": lambda file: file.create_dataset("x", data=np.zeros(3, "f4,i4")),
    "values that are no plain numbers at /s": lambda file: file.__setitem__("s", "text"),
    "values that are no plain numbers at /r": lambda file: file.create_dataset(
        "r", data=file["state"].ref, dtype=h5py.ref_dtype
    ),
    "values that are no plain numbers at /v": lambda file: file.create_dataset("v", (3,), h5py.vlen_dtype(np.int8)),
    "values that are no plain numbers at /c": lambda file: file.__setitem__("c", np.zeros(3, complex)),
    "values that are no plain numbers at /l": lambda file: file.__setitem__("l", np.zeros(3, np.longdouble)),
    "5 dimensions at /x": lambda file: file.__setitem__("x", np.zeros((1,) * 5)),
    "a named data type at /x": lambda file: file.__setitem__("x", np.dtype("float32")),
    "groups nested more than": nest,
    "more than 4096 data sets": lambda file: [file.__setitem__(f"x{number}", 1.0) for number in range(4097)],
    "a name that is not ASCII": lambda file: file.__setitem__("größe", 1.0),
    "a name that is not ASCII or longer": lambda file: file.__setitem__("x" * 300, 1.0),
    "neither one text nor one number": lambda file: file.attrs.__setitem__("x", np.zeros(3)),
    "no text of UTF-8": lambda file: file.attrs.__setitem__("x", np.bytes_(b"\xff\xfe")),
    "longer than 16777216 bytes": lambda file: file.attrs.__setitem__("x", "x" * (2**24 + 1)),
    "JSON that is nested more than": lambda file: file.attrs.__setitem__("config", '{"a":' * 90 + "1" + "}" * 90),
    "JSON that cannot be read (maximum recursion": lambda file: file.attrs.__setitem__("config", "[" * 10**5),
}


@pytest.fixture
def path(tmp_path):
    store.write_state(tmp_path / "m.h5", {"family": "x"}, {"a": np.zeros((3, 2), np.float32), "n": 3, "b": True}, {})
    return tmp_path / "m.h5"


def test_what_this_project_writes_is_plain(path):
    with h5py.File(path, "r+") as file:
        file.create_dataset("empty", data=np.zeros((0, 4)))
        file.create_dataset("checked", data=np.arange(1000.0), chunks=(100,), fletcher32=True)
    require_plain(path)
    assert h5py.File(path)["checked"][-1] == 999


@pytest.mark.parametrize("sentence", STRANGE)
def test_whatever_else_is_refused(path, sentence):
    with h5py.File(path, "r+") as file:
        STRANGE[sentence](file)
    with pytest.raises(InputError) as refused:
        require_plain(path, gathered=sentence != "a virtual data set at /x")
    assert sentence in str(refused.value)
    assert str(path) in str(refused.value)
    assert len(str(refused.value)) < 400


def test_gathered_shards_beside_the_file_are_the_one_exception(path):
    for source, values in (("shards/a.h5", np.arange(3.0)), ("../out.h5", np.zeros(3))):
        store.write_state(path.parent / "d" / source, {}, {"values": values}, {})
        with h5py.File(path.parent / "d/gathered.h5", "w") as file:
            file.create_virtual_dataset("x", virtual(source))
        if source == "shards/a.h5":
            require_plain(path.parent / "d/gathered.h5", gathered=True)
    with pytest.raises(InputError, match="a source that is not beside it"):
        require_plain(path.parent / "d/gathered.h5", gathered=True)


def test_a_source_is_looked_at_as_well(path):
    with h5py.File(path.parent / "source.h5", "w") as file:
        file.create_dataset("values", data=np.zeros(3), compression="gzip", chunks=(3,))
    with h5py.File(path.parent / "gathered.h5", "w") as file:
        file.create_virtual_dataset("x", virtual("source.h5"))
    with pytest.raises(InputError, match=r"source\.h5 has compressed values"):
        require_plain(path.parent / "gathered.h5", gathered=True)


def test_hdf5_opens_a_file_and_its_sources_only_when_they_are_whole(path):
    """HDF5 may never end on a damaged one."""
    with h5py.File(path.parent / "gathered.h5", "w") as file:
        file.create_virtual_dataset("x", virtual("m.h5"))
    looked_at = []
    require(path.parent / "gathered.h5", looked_at.append, gathered=True)
    assert looked_at == [path.parent / "gathered.h5", path]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"m\.h5 is not as it was written"):
        require(path, store.require_whole)


def test_nothing_is_allocated_for_what_is_declared(path):
    """In a process that may have little memory."""
    with h5py.File(path, "r+") as file:
        file.create_dataset("bomb", (2**36,), "uint8", chunks=(2**20,), compression="gzip")
    code = "import sys, pathlib, dinodp.jobs.strangers as s; s.require_plain(pathlib.Path(sys.argv[1]), print)"

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))

    command = [sys.executable, "-c", code, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert "has compressed values at /bomb" in done.stderr
    assert "MemoryError" not in done.stderr


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_plain_or_one_sentence(path, seed):
    generator = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    for place in generator.integers(len(content), size=8):
        content[place] ^= 1 << int(generator.integers(8))
    path.write_bytes(content[: int(generator.integers(1, len(content)))] if seed % 4 == 0 else content)
    with suppress(InputError):  # anything else is a traceback
        require_plain(path)
        with h5py.File(path) as file:
            assert file.id.valid


LONG = '{"a": ' + "1" * 5000 + "}"


@pytest.mark.parametrize("text", ["[1]", "{", "", '{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', b"\xff", LONG])
def test_json_that_is_no_object_of_finite_numbers(tmp_path, text):
    with pytest.raises(InputError, match=r"a\.json holds JSON that"):
        parsed_json(text, tmp_path / "a.json")


def test_json_as_deep_as_is_allowed(tmp_path):
    content = 1
    for _ in range(DEEPEST):
        content = {"a": content}
    assert parsed_json(json.dumps(content), tmp_path / "a.json") == content
