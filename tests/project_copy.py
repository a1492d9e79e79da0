"""A copy of the project's workflow with a small run in it, so that tests may edit files and run it as a user would."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
FOLDERS = ("rules", "scripts", "config", "envs", "profiles", "report", "resources")


def small_run(images: tuple[int, int, int], components: int = 20, epochs: int = 2, **run: Any) -> dict[str, Any]:
    """A configuration: phantoms (train, valid, test), memory bank and mixture on the classical descriptor, one seed."""
    return {
        "datasets": {"phantoms": dict(zip(("n_train", "n_valid", "n_test"), images, strict=True))},
        "models": {"dpmm_demo": {"components": components, "epochs": epochs}},
        "run": {
            "title": "Test run",
            "note": "Tiny phantoms.",
            "datasets": ["phantoms"],
            "embeddings": ["classical"],
            "models": ["memory_bank", "dpmm_demo"],
            "alignment_models": ["dpmm_demo"],
            "seeds": [0],
            **run,
        },
    }


def copy_project(folder: Path, name: str, configuration: dict[str, Any]) -> Path:
    """The workflow in ``folder``, with ``config/<name>.yaml``."""
    for part in FOLDERS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / f"config/{name}.yaml").write_text(yaml.safe_dump(configuration))
    return folder


def snakemake(
    folder: Path, *arguments: str, check: bool = True, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the workflow in ``folder``; ``text`` of the result is all that it printed."""
    command = [sys.executable, "-m", "snakemake", "-s", str(folder / "Snakefile"), "-d", str(folder), "--cores", "2"]
    if environment is None:
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    result: Any = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=600
    )
    result.text = result.stdout + result.stderr
    assert not check or result.returncode == 0, result.text[-4000:]
    return result
