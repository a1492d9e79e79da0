"""Every benchmark and example can be imported: what it takes from the library is there."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "examples").glob("*.py")])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_it_can_be_imported(path, monkeypatch):
    """Those of an extra that is not installed are skipped."""
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    specification = importlib.util.spec_from_file_location(f"imported_{path.stem}", path)
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, specification.name, module)
    try:
        specification.loader.exec_module(module)
    except ModuleNotFoundError as missing:
        if missing.name.partition(".")[0] == "dinodp" or (path.parent / f"{missing.name}.py").is_file():
            raise
        pytest.skip(f"{missing.name} is not installed")
    assert module.__doc__
