"""Where the workflow lies: around the library in a checkout, beside it where the package is installed.

Others' workflows take `SNAKEFILE` as a module (docs/cluster.md).
"""

from pathlib import Path

LIBRARY = Path(__file__).parents[1]
INSTALLED = LIBRARY.with_name("dinodp_workflow")  # setup.py puts it there
ROOT = INSTALLED if INSTALLED.is_dir() else LIBRARY.parents[1]
SNAKEFILE = ROOT / "Snakefile"
