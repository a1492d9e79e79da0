"""These tests take minutes: they run only where they are asked for, ``pytest -m faults tests/faults``."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave them out of every other run."""
    if config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("faults") and HERE in item.path.parents]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
