"""What counts of the library for a script: on a small library made here, edited in every way."""

import json
import subprocess
import sys

import pytest

from dinodp.jobs import closure
from dinodp.jobs.closure import Closures, Code, code_digest

FILES = {
    "lib/__init__.py": '"""The library."""\n',
    "lib/low.py": "VALUE = 1\n",
    "lib/lazy.py": "VALUE = 2\n",
    "lib/types.py": "class Kind: ...\n",
    "lib/unused.py": "VALUE = 3\n",
    "lib/room/__init__.py": "NAME = 'room'\n",
    "lib/room/one.py": "from ..low import VALUE\nfrom . import beside\n",
    "lib/room/beside.py": "",
    "lib/room/unused.py": "",
    "lib/found/__init__.py": "import pkgutil\nNAMES = [m.name for m in pkgutil.iter_modules(__path__)]\n",
    "lib/found/member.py": "",
    "lib/found/deep/__init__.py": "",
    "lib/found/deep/member.py": "import lib.low\n",
    "lib/page/__init__.py": "",
    "lib/page/writing.py": "from pathlib import Path\nSTYLE = Path(__file__).with_name('looks') / 'style.css'\n",
    "lib/page/plain.py": "",
    "lib/page/looks/style.css": "a {}",
}
SCRIPTS = {
    "room": "from lib.room import one\n",
    "lazy": "def work():\n    import lib.lazy\n",
    "typed": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lib.types\nelse:\n    from lib import low\n"
    ),
    "typed_by_name": "import typing\nif typing.TYPE_CHECKING:\n    import lib.types\n",
    "value": "from lib.low import VALUE\n",
    "found": "import lib.found\n",
    "page": "from lib.page.writing import STYLE\n",
    "plain": "from lib.page import plain\n",
    "foreign": "import json, other.lib.low\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name, text in SCRIPTS.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def digest(folder, script, cache=None):
    return Closures(folder / "lib", cache).digest(folder / f"{script}.py")


@pytest.mark.parametrize(
    ("script", "modules"),
    [
        ("room", {"lib", "lib.room", "lib.room.one", "lib.room.beside", "lib.low"}),
        ("lazy", {"lib", "lib.lazy"}),
        ("typed", {"lib", "lib.low"}),
        ("typed_by_name", set()),
        ("value", {"lib", "lib.low"}),
        ("found", {"lib", "lib.found", "lib.found.member", "lib.found.deep", "lib.found.deep.member", "lib.low"}),
        ("page", {"lib", "lib.page", "lib.page.writing"}),
        ("plain", {"lib", "lib.page", "lib.page.plain"}),
        ("foreign", set()),
    ],
)
def test_modules_of_a_script(folder, script, modules):
    assert Closures(folder / "lib").modules(folder / f"{script}.py") == modules


def test_a_module_counts_with_itself(folder):
    assert Closures(folder / "lib").modules("lib.room.one") == Closures(folder / "lib").modules(folder / "room.py")


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_digest_changes_with_the_files_of_the_closure_and_no_other(folder, script):
    before = digest(folder, script)
    closures = Closures(folder / "lib")
    modules = closures.modules(folder / f"{script}.py")
    files = {module.replace(".", "/") + end for module in modules for end in (".py", "/__init__.py")}
    used = {folder / name for name in files} | set(closures.data(modules))
    for name, text in FILES.items():
        path = folder / name
        path.write_text(text + ("\nEDITED = 1\n" if path.suffix == ".py" else "b {}"))
        assert (digest(folder, script) != before) == (path in used), name
        path.write_text(text)
    assert digest(folder, script) == before


def test_templates_belong_to_the_module_that_asks_where_it_is(folder):
    closures = Closures(folder / "lib")
    style = folder / "lib/page/looks/style.css"
    assert closures.data(closures.modules("lib.page.writing")) == [style]
    assert closures.data(closures.modules("lib.page.plain")) == []


@pytest.mark.parametrize("text", ["# a comment\nVALUE = 1\n", '"""A docstring."""\n\n\nVALUE = (1)\n', "VALUE=1"])
def test_comments_docstrings_and_layout_do_not_count(folder, text):
    before = digest(folder, "value")
    (folder / "lib/low.py").write_text(text)
    assert digest(folder, "value") == before


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('def f():\n    """A."""\n    return 1', 'def f():\n    """B."""\n    return 1', True),
        ('class A:\n    """A."""\n    x = 1', "class A:\n    x = 1", True),
        ('async def f():\n    """A."""\n    return 1', "async def f():\n    return 1", True),
        ("x = 'a'", "x = 'b'", False),
        ("def f():\n    return", "def f():\n    return None", False),
        ("x = 1", "x = True", False),
        ("x = [1, 2]", "x = [2, 1]", False),
        ("x = {**a}", "x = {None: a}", False),
        ("f(1)", "f(b'1')", False),
    ],
)
def test_what_counts_of_a_file(one, other, same):
    assert (Code.of(one.encode()).digest == Code.of(other.encode()).digest) == same


def test_a_new_module_counts_where_siblings_are_found(folder):
    before = {script: digest(folder, script) for script in SCRIPTS}
    (folder / "lib/found/added.py").write_text("")
    (folder / "lib/room/added.py").write_text("")
    assert {script for script in SCRIPTS if digest(folder, script) != before[script]} == {"found"}


def test_a_name_that_becomes_a_module_counts(folder):
    before = digest(folder, "value")
    (folder / "lib/low.py").unlink()
    (folder / "lib/low").mkdir()
    (folder / "lib/low/__init__.py").write_text("VALUE = 1\n")
    assert Closures(folder / "lib").modules(folder / "value.py") == {"lib", "lib.low"}
    assert digest(folder, "value") == before  # the same code under the same name


def test_the_cache_saves_parsing_and_is_never_older_than_the_files(folder, monkeypatch):
    cache = folder / "cache.json"
    before = digest(folder, "room", cache)
    with monkeypatch.context() as patched:
        patched.setattr(closure.ast, "parse", None)  # not called again
        assert digest(folder, "room", cache) == before
    path = folder / "lib/low.py"
    made = path.stat()
    path.write_text("VALUE = 9\n")  # of the same size, and soon of the same time
    closure.os.utime(path, ns=(made.st_atime_ns, made.st_mtime_ns))
    changed = digest(folder, "room", cache)
    assert changed == digest(folder, "room") != before


def test_what_another_parser_has_kept_is_not_taken(folder, monkeypatch):
    cache, right = folder / "cache.json", digest(folder, "room")
    with monkeypatch.context() as patched:
        patched.setattr(Code, "of", lambda source: Code("wrong", (), False, False))
        patched.setattr(closure, "_parser", lambda: "another Python, or another state of the module")
        assert digest(folder, "room", cache) != right
    assert digest(folder, "room", cache) == right


@pytest.mark.parametrize("content", ["", "{", "[]", '{"parser": "another", "files": {}}', '{"files": []}', None])
def test_a_cache_that_is_unusable_is_made_anew(folder, content):
    cache = folder / "cache.json"
    text = json.dumps({"parser": closure._parser(), "files": {"0": {"digest": "0"}}}) if content is None else content
    cache.write_text(text)
    assert digest(folder, "room", cache) == digest(folder, "room")
    assert len(json.loads(cache.read_text())["files"]) == 6


def test_no_cache_is_made_where_there_is_no_folder_for_it(folder):
    digest(folder, "room", folder / "absent/cache.json")
    assert not (folder / "absent").exists()


def test_the_digest_of_running_code_is_that_of_its_files():
    assert code_digest("dinodp.errors") == Closures().digest("dinodp.errors")
    assert len(code_digest("dinodp.errors")) == closure.DIGITS


def test_standard_library_only():
    """It is imported where the Snakefile is read, in every job."""
    code = "import sys, dinodp.jobs.closure; print([m for m in ('numpy', 'torch', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
