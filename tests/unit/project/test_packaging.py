"""Wheel and sdist hold all that a run needs; the container is built where there is an engine."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from project_copy import ROOT, small_run

from dinodp.datasets.archives import unpack

COPIED = ("Snakefile", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")
COPIED += ("CITATION.cff", "constraints.txt", ".snakemake-workflow-catalog.yml")
FOLDERS = ("rules", "config", "envs", "profiles", "report", "resources", "workflow", "scripts")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An sdist of the project, and the wheel that is built from what the sdist holds."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    source.mkdir()
    for name in COPIED:
        shutil.copy(ROOT / name, source)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    sdist = build(source, "sdist", folder)
    unpack(sdist, folder / "unpacked")
    return sdist, build(next((folder / "unpacked").iterdir()), "wheel", folder)


def build(source, kind, folder):
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


def test_the_wheel_holds_what_is_in_the_checkout(built):
    names = set(zipfile.ZipFile(built[1]).namelist())
    library = [path for path in (ROOT / "scripts/dinodp").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    wanted = {str(path.relative_to(ROOT / "scripts")) for path in library}
    parts = [path for name in FOLDERS if name not in ("workflow", "scripts") for path in (ROOT / name).rglob("*")]
    parts += [ROOT / "Snakefile", *(ROOT / "scripts").glob("*.py")]
    wanted |= {str(Path("dinodp_workflow", path.relative_to(ROOT))) for path in parts if path.is_file()}
    missing = {name for name in wanted if "__pycache__" not in name} - names
    assert not missing
    assert any(name.startswith("dinodp/datasets/sources/") and name.endswith(".json") for name in names)


def test_an_installed_wheel_runs_from_an_empty_folder(built, tmp_path):
    """Its dependencies are those of the tests' environment, seen through a .pth file."""
    venv.create(tmp_path / "env", symlinks=True)
    site = next((tmp_path / "env/lib").glob("*/site-packages"))
    zipfile.ZipFile(built[1]).extractall(site)
    shared = Path(yaml.__file__).parents[1]
    (site / "shared.pth").write_text(f"{shared}\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "mine.yaml").write_text(yaml.safe_dump(small_run((6, 3, 3), components=4, epochs=1)))
    python = tmp_path / "env/bin/python"
    place = call(run, python, "-c", "import dinodp; print(dinodp.__file__)")
    assert place.startswith(str(site))
    text = call(run, python, "-m", "dinodp.cli", "benchmark", "-n", "--cores", "2", "--configfile", "mine.yaml")
    assert "rule write_report:" in text
    target = "results/data/phantoms/manifest.csv"
    call(run, python, "-m", "dinodp.cli", "benchmark", target, "--cores", "2", "--configfile", "mine.yaml")
    assert "images" in call(run, python, "-m", "dinodp.cli", "info", target)


def call(folder, *command):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    options = {"capture_output": True, "text": True, "check": False, "timeout": 300}
    done = subprocess.run([*map(str, command)], cwd=folder, env=environment, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def engine():
    """An engine whose service answers and that can fetch the base image."""
    for name in ("docker", "podman"):
        if shutil.which(name) and not subprocess.run([name, "info"], capture_output=True, check=False).returncode:
            return name
    return None


def test_the_container_is_built_and_shows_the_workflow():
    if (program := engine()) is None:
        pytest.skip("no container engine runs here")
    done = subprocess.run([program, "build", "-q", "-t", "dinodp-test", str(ROOT)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    command = [program, "run", "--rm", "dinodp-test", "dinodp", "benchmark", "-n", "--cores", "1"]
    assert b"rule write_report:" in subprocess.run(command, capture_output=True, check=True).stdout
