"""A stand-in for conda-forge in a local folder, for a real solver.

It holds the installed releases (those of constraints.txt) with the dependencies that their wheels declare, and for
every package that an environment names an old and a future release, which a wrong or missing pin would take. The
packages have names, versions and dependencies, but no content; only python has a program: it notes the script and runs
the interpreter of the tests.
"""

import asyncio
import io
import json
import sys
import tarfile
from importlib.metadata import distribution
from pathlib import Path

import rattler
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PYTHON = "3.11.14"
OLD, FUTURE = "0.0.1", "9999.0"
PLATFORM = str(rattler.Subdir.current())
# One line for every script that ran, in the environment that it ran in.
INTERPRETER = f"""\
#!/bin/sh
case "$1" in *.py) echo "$1" >> "$(dirname "$0")/../scripts_run.txt" ;; esac
exec {sys.executable} "$@"
"""


def build_channel(folder: Path, environments: list[Path]) -> None:
    """Write packages and index of a channel that has what ``environments`` (envs/*.yaml) ask for."""
    named = {spec.split()[0] for path in environments for spec in yaml.safe_load(path.read_text())["dependencies"]}
    _package(folder / PLATFORM, "python", PYTHON, files={"bin/python": INTERPRETER})
    cpu, cuda = _requirements("torch", named), [*_requirements("torch", named), "__cuda"]
    version = installed_version("pytorch")
    _package(folder / PLATFORM, "pytorch", version, cpu, build="cpu_generic_py311_0")
    _package(folder / PLATFORM, "pytorch", version, cuda, build="cuda129_generic_py311_0")
    for name in _reached_from(named) - {"python", "pytorch"}:
        _package(folder / "noarch", name, installed_version(name), _requirements(name, named))
    for name in named:
        _package(folder / "noarch", name, OLD)
        _package(folder / "noarch", name, FUTURE)
    asyncio.run(rattler.index.index_fs(folder, write_zst=False, write_shards=False))


def installed_version(name: str) -> str:
    """The release of a conda package's wheel that is installed here, without the mark of its build (+cpu)."""
    return PYTHON if name == "python" else Version(distribution(_wheel(name)).version).public


def _wheel(name: str) -> str:
    return "torch" if name == "pytorch" else name


def _reached_from(named: set[str]) -> set[str]:
    """The packages named, and all that they depend on."""
    found, queue = set(), sorted(named)
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue.extend([] if name == "python" else (spec.split()[0] for spec in _requirements(name, named)))
    return found


def _requirements(name: str, named: set[str]) -> list[str]:
    """What a wheel asks for, as conda writes it; ``named`` says how environments spell names."""
    wheel = distribution(_wheel(name))
    spelling = {canonicalize_name(_wheel(known)): known for known in named}
    requirements = [Requirement(text) for text in wheel.requires or []]
    needed = [item for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]
    python = f"python {wheel.metadata['Requires-Python'] or ''}".strip()
    names = [spelling.get(canonicalize_name(item.name), canonicalize_name(item.name)) for item in needed]
    return [python, *(f"{name} {item.specifier}".strip() for name, item in zip(names, needed, strict=True))]


def _package(folder: Path, name, version, depends=(), build="0", files=None) -> None:
    """A package in conda's first format: an archive of files with the metadata below ``info/``."""
    folder.mkdir(parents=True, exist_ok=True)
    files, place = files or {}, {"noarch": "generic"} if folder.name == "noarch" else {}
    index = {"name": name, "version": version, "build": build, "build_number": 0, "depends": list(depends)}
    paths = [{"_path": path, "path_type": "hardlink"} for path in files]
    metadata = {
        "info/index.json": json.dumps({**index, **place, "subdir": folder.name}),
        "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}),
        "info/files": "".join(f"{path}\n" for path in files),
    }
    with tarfile.open(folder / f"{name}-{version}-{build}.tar.bz2", "w:bz2") as archive:
        for path, text in {**metadata, **files}.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(text), 0o755
            archive.addfile(member, io.BytesIO(text.encode()))
