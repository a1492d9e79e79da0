"""A copy of the project's workflow with a small run in it, so that tests may edit files and run it as a user would."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from scipy import ndimage

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


def picture(path: Path, seed: int, is_anomalous: bool = False) -> Any:
    """A texture, with a bright spot where it is anomalous; returns the spot [H, W]."""
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(96, 112)), 3)
    spot = np.hypot(*np.ogrid[-30:66, -40:72]) < 9
    values = 110 + 20 * texture / texture.std() + 100 * (spot & is_anomalous)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(path)
    return spot


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


def kill_when(folder: Path, pattern: str, *arguments: str) -> None:
    """Start a run, kill all its processes as soon as there is a file ``pattern``, and remove its lock."""
    with (folder / "killed.log").open("a") as log:
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--rerun-incomplete", *arguments]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 600
        while not list(folder.glob(pattern)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    result = snakemake(folder, *arguments, check=False)
    assert "It can be removed with the --unlock argument" in result.text
    snakemake(folder, "--unlock", *arguments)
