"""Puts the workflow beside the library in what is installed; everything else is said in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PARTS = ["Snakefile", "rules/*.smk", "config/*", "envs/*.yaml", "profiles/*/*", "report/*.rst"]
PARTS += ["resources/*/*", "scripts/*.py"]


class WithWorkflow(build_py):
    """The library, and the workflow in a folder of its own (`dinodp.jobs.snakefile`)."""

    def run(self) -> None:
        """Copy both; an editable installation finds the workflow around the library."""
        super().run()
        if not self.editable_mode:
            for path in (path for part in PARTS for path in ROOT.glob(part)):
                target = Path(self.build_lib, "dinodp_workflow", path.relative_to(ROOT))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)


setup(cmdclass={"build_py": WithWorkflow})
