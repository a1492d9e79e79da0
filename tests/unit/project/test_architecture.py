"""The rooms of the library: what may import what is checked by `make lint`, and drawn as it is checked."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

LINT = Path(sys.executable).with_name("lint-imports")


def layers(root):
    """Rooms from high to low, those beside each other in one list."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return [layer.split(" | ") for layer in contracts[0]["layers"]]


def test_the_picture_shows_the_layers_of_the_contract(root):
    picture = re.search(r"(?s)```\n(cli.*?)```", (root / "docs/architecture.md").read_text())[1]
    drawn = [sorted(re.split(r"\s{2,}", line)[:-1]) for line in picture.strip().splitlines()]
    assert drawn == [sorted(rooms) for rooms in layers(root)]


def test_every_room_has_its_layer(root):
    library = root / "scripts/dinodp"
    rooms = {path.stem for path in library.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {"__init__"} == {room for rooms in layers(root) for room in rooms}


@pytest.mark.parametrize(
    ("module", "line", "said"),
    [
        ("images.py", "", "Contracts: 2 kept, 0 broken."),
        ("images.py", "import dinodp.report", "dinodp.images is not allowed to import dinodp.report"),
        ("errors.py", "import torch", "dinodp.errors is not allowed to import torch"),
    ],
)
def test_make_lint_refuses_an_import_upward_and_a_slow_one_in_the_snakefile(root, tmp_path, module, line, said):
    shutil.copytree(root / "scripts/dinodp", tmp_path / "dinodp", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    with (tmp_path / "dinodp" / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = subprocess.run(
        [LINT, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert said in done.stdout
    assert (done.returncode == 0) == (not line)


def test_make_lint_checks_it(root):
    assert "lint-imports" in (root / "Makefile").read_text()
