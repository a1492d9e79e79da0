"""The benchmarks' own parts, and what they compare with: exact metrics, all pairs of a full covariance."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch


@pytest.fixture
def benchmark(root, monkeypatch):
    """Import a file of benchmarks/ as it is imported when run."""
    names = [path.stem for path in (root / "benchmarks").glob("*.py")]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield __import__
    for name in names:
        sys.modules.pop(name, None)


def test_ratios_are_of_pairs_timed_in_turn(benchmark):
    runner, order = benchmark("runner"), []
    row = runner.alternate(lambda: order.append("a"), lambda: order.append("b"), repeats=3, warm_up=1)
    assert order == ["a", "b"] * 4
    low, middle, high = row["ratio"]["wall"]
    assert low <= middle <= high
    assert runner.spread(np.array([1.0, 2.0, 3.0])) == [1.5, 2.0, 2.5]


def test_metrics_in_a_stream_are_the_exact_ones(benchmark):
    metrics = benchmark("metrics")
    maps = metrics.patch_maps(2)
    found, expected = metrics.ours(maps, 2), metrics.theirs(maps, 2)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert len(expected) == 5


def test_a_full_step_is_the_dense_step(benchmark):
    fit_full, made_data = benchmark("fit_full"), benchmark("made_data")
    x = made_data.clustered(600, 40)
    ours, dense = (
        kind(20, "full", reg_covar=1e-3) for kind in (fit_full.DirichletProcessMixture, fit_full.DenseMixture)
    )
    ours.initialize(x, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        ours.partial_fit(x)
    dense.load_state(ours.state_dict())
    ours.partial_fit(x)
    dense.partial_fit(x)
    torch.testing.assert_close(ours.means_, dense.means_, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.covariances_, dense.covariances_, atol=1e-5, rtol=0)


def test_a_set_has_no_say_in_its_own_choice(benchmark):
    module = benchmark("leave_one_set_out")
    rows = [("a", 0.1, 0.4), ("b", 0.5, 0.3), ("c", 0.2, 0.3)]  # set, AP of the scores x and y
    found = pd.DataFrame([(name, 6, s, v) for name, *ap in rows for s, v in zip("xy", ap, strict=True)])
    found.columns = ["set", "layer", "score", "ap"]
    assert module.ranking(found, "a").index.tolist() == ["x", "y"]  # 0.5 * 0.2 > 0.3 * 0.3
    assert module.ranking(found, "b").index.tolist() == ["y", "x"]
    found.loc[found["set"] == "a", "ap"] *= 0.01
    assert module.ranking(found, "a").to_dict() == pytest.approx({"x": np.log(0.1) / 2, "y": np.log(0.09) / 2})


def test_every_result_names_its_benchmark_and_machine(root):
    found = sorted((root / "benchmarks/results").glob("*.json"))
    assert found
    for path in found:
        content = json.loads(path.read_text())
        assert {"cpu", "threads", "torch", "device"} <= set(content["machine"])
        assert content["rows"]
        assert path.stem == "baseline" or (root / f"benchmarks/{path.stem.rsplit('-', 1)[0]}.py").is_file()
