"""What exists, read from files, is what the registries hold."""

from pathlib import Path

from dinodp.options.finding import known_figures, known_tables, modules_with
from dinodp.report.figures import FIGURES
from dinodp.report.tables import TABLES


def test_the_lists_are_those_of_the_registries() -> None:
    assert known_tables() == list(TABLES)
    assert known_figures() == list(FIGURES)


def test_a_module_without_the_function_is_no_choice(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def make(x):\n    return x\n")
    (tmp_path / "b.py").write_text(
        "def make_table(x):\n    return x\n\nclass C:\n    def make(self):\n        return 1\n"
    )
    assert modules_with(tmp_path, "make") == ["a"]
