"""Where the workflow lies: around the library in a checkout, beside it where the package is installed.

Others' workflows take `SNAKEFILE` as a module (docs/cluster.md).
"""

from pathlib import Path

LIBRARY = Path(__file__).parents[1]
INSTALLED = LIBRARY.with_name("dinodp_workflow")  # setup.py puts it there
ROOT = INSTALLED if INSTALLED.is_dir() else LIBRARY.parents[1]
SNAKEFILE = ROOT / "Snakefile"


def project_file(name: str) -> str:
    """A run file ``config/NAME.yaml`` of the project by its place, unless the working folder has one of that name."""
    own = ROOT / name
    comes_along = name.startswith("config/") and own.is_file() and not Path(name).exists()
    return str(own) if comes_along else name
