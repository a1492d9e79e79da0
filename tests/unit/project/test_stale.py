"""The code that a rule depends on: what its script imports, found by parsing, covers what it imports when it runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dinodp import store
from dinodp.jobs.closure import LIBRARY, Closures

# Each script's imports in a fork of one process, which has imported the slow foreign packages.
PRINT_IMPORTED = """
import ast, json, os, sys
import matplotlib.figure, pandas, scipy, sklearn, torch
for path in sys.argv[1:]:
    if os.fork() == 0:
        tree = ast.parse(open(path).read())
        tree.body = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        exec(compile(tree, path, "exec"))
        found = [name for name in sys.modules if name.split(".")[0] == "dinodp"]
        print(json.dumps([path, found]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def closures():
    return Closures()


def rules(root):
    """{rule: its text} of rules that have a script; a rule that uses another has that one's."""
    texts = [text for file in (root / "rules").glob("*.smk") for text in re.split(r"(?m)^rule ", file.read_text())[1:]]
    return {text.split(":")[0]: text for text in texts}


def test_every_rule_depends_on_the_code_of_its_own_script(root):
    found = rules(root)
    assert len(found) > 20
    for name, text in found.items():
        script = re.search(r'"\.\./scripts/(\w+)\.py"', text)[1]
        assert re.findall(r"library=(.*),", text) == [f'code_of("{script}")'], name


def test_a_closure_covers_what_is_imported(root, closures):
    paths = sorted(map(str, (root / "scripts").glob("*.py")))
    command = [sys.executable, "-c", PRINT_IMPORTED, *paths]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    imported = {path: set(modules) for path, modules in map(json.loads, lines)}
    assert sorted(imported) == paths
    for path, modules in imported.items():
        found = closures.modules(Path(path))
        assert {"dinodp", "dinodp.jobs.logs"} <= modules <= found, path
        assert not {name for name in found if name.startswith(("dinodp.scans", "dinodp.commands", "dinodp.cli"))}


def test_code_that_is_run_by_name_or_found_counts(root, closures):
    assert "dinodp.families.fit_job" in closures.modules(root / "scripts/fit_model.py")  # what torchrun starts
    assert "dinodp.datasets.sources.phantoms" in closures.modules(root / "scripts/prepare_dataset.py")
    assert "dinodp.backbones.huggingface" in closures.modules(root / "scripts/embed.py")
    figures = closures.modules(root / "scripts/draw_figure.py")
    assert {f"dinodp.report.figures.{path.stem}" for path in (LIBRARY / "report/figures").glob("[!_]*.py")} <= figures
    assert closures.data(closures.modules(root / "scripts/prepare_dataset.py")) == [
        LIBRARY / "datasets/sources/brats2021_patients.json"
    ]
    templates = closures.data(closures.modules(root / "scripts/write_report.py"))
    assert set(templates) == set((LIBRARY / "report/templates").iterdir())


def test_a_file_names_the_code_that_makes_its_kind(closures):
    for kind, module in store.FORMATS.items():
        assert "dinodp.store" in closures.modules(module), kind


def test_embeddings_do_not_depend_on_what_comes_after_them(closures):
    later = ("models", "families", "metrics", "evaluation", "report", "scans")
    found = closures.modules(store.FORMATS["embeddings"])
    assert not [name for name in found if name.split(".")[1:2] and name.split(".")[1] in later]
