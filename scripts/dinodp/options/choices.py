"""Which tables and figures exist, read from the files that define them: nothing of theirs is imported."""

import re
from pathlib import Path

REPORT = Path(__file__).parents[1] / "report"


def modules_with(folder: Path, function: str) -> list[str]:
    """Names of the modules of a folder that define a function of that name."""
    defined = re.compile(rf"^def {function}\(", re.M)
    return sorted(path.stem for path in folder.glob("*.py") if defined.search(path.read_text(encoding="utf-8")))


def known_tables() -> list[str]:
    """What ``run.tables`` may name: a module of ``report/tables`` with a function ``make``."""
    return modules_with(REPORT / "tables", "make")


def known_figures() -> list[str]:
    """What ``run.figures`` may name: a module of ``report/figures`` with a function ``draw``."""
    return modules_with(REPORT / "figures", "draw")
