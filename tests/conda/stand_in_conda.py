"""A stand-in for the ``conda`` command: the five calls that Snakemake makes, by the solver and installer of py-rattler.

CONDA_CHANNEL_ALIAS, CONDA_PKGS_DIRS and CONDA_OVERRIDE_CUDA mean what they mean to conda.
"""

import asyncio
import json
import os
import shlex
import sys
from pathlib import Path

import rattler
import yaml
from rattler.exceptions import SolverError

ACTIVATE = 'export CONDA_PREFIX="$1" PATH="$1/bin:$PATH"\n'


def write_command(folder: Path) -> None:
    """An installation in ``folder``: ``bin/conda`` and ``bin/activate``."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/activate").write_text(ACTIVATE)
    command = folder / "bin/conda"
    words = shlex.join([sys.executable, __file__, str(folder)])
    command.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    command.chmod(0o755)


def solve(path: Path) -> list[rattler.RepoDataRecord]:
    """What satisfies an environment file, from its channels (``nodefaults`` is none)."""
    content = yaml.safe_load(path.read_text())
    if unseen := [spec for spec in content["dependencies"] if not isinstance(spec, str)]:
        raise ValueError(f"{path} has a section that conda's solver does not see: {unseen}")
    places = rattler.ChannelConfig(os.environ["CONDA_CHANNEL_ALIAS"])
    channels = [rattler.Channel(name, places) for name in content["channels"] if name != "nodefaults"]
    machine = rattler.VirtualPackage.detect(rattler.VirtualPackageOverrides.from_env())
    gateway = rattler.Gateway(cache_dir=os.environ["CONDA_PKGS_DIRS"])
    return asyncio.run(rattler.solve(channels, content["dependencies"], gateway, virtual_packages=machine))


def create(path: Path, prefix: Path) -> None:
    """Solve an environment file and install what satisfies it; where nothing does, end with the solver's words."""
    try:
        records = solve(path)
    except SolverError as error:
        sys.exit(f"{path}: {error}")
    asyncio.run(rattler.install(records, prefix, os.environ["CONDA_PKGS_DIRS"], show_progress=False))


def main(installation: str, *arguments: str) -> None:
    """Answer a call of Snakemake 9; any other is an error."""
    match arguments:
        case ["--version"]:
            print("conda 24.11.3")
        case ["info", "--json"]:
            print(json.dumps({"conda_prefix": installation, "platform": str(rattler.Subdir.current())}))
        case ["config", "--get", "channel_priority", "--json"]:
            print(json.dumps({"get": {"channel_priority": "strict"}}))
        case ["env", "create", "--quiet", "--no-default-packages", "--file", file, "--prefix", prefix]:
            create(Path(file), Path(prefix))
        case ["clean", "-y", "--tarballs"]:
            pass  # the installer keeps none
        case _:
            sys.exit(f"the stand-in for conda has no `conda {shlex.join(arguments)}`")


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # threads of the solver may still run, which the end of the interpreter would crash on
