"""Shared by all tests: offline, quiet, and where the real data would be."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
# The same examples in every run, and few of them; a slow machine is no failure.
settings.register_profile("bounded", max_examples=25, derandomize=True, database=None, deadline=None)
settings.load_profile("bounded")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real volumes and weights beside the project; tests that need them skip where they are absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder ../shared with real volumes and weights is not here")
    return folder


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked ``faults`` take minutes: they run only where they are asked for (``pytest -m faults``)."""
    if config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("faults")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
