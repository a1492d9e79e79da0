"""Tests of a real GPU: they are skipped where torch sees none."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def gpu() -> None:
    """Skip where there is no GPU."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU: torch sees no CUDA device here")
