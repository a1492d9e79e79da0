import numpy as np
import pytest

from dinodp import store
from dinodp.errors import InputError


def _write_and_fail(path):
    with store.writing(path, "scores", {}) as file:
        file.create_dataset("cosine", data=np.zeros(3))
        file.attrs["share"] = 1 / 0


def test_a_failed_write_leaves_nothing(tmp_path):
    path = tmp_path / "scores.h5"
    with pytest.raises(ZeroDivisionError):
        _write_and_fail(path)
    assert list(tmp_path.iterdir()) == []


def test_state_comes_back(tmp_path):
    path = tmp_path / "model.h5"
    state = {"means": np.arange(6, dtype=np.float32).reshape(2, 3), "concentration": 2.5}
    store.write_state(path, {"family": "dpmm", "reg_covar": 1e-6}, state, {"epoch": [1, 2]})
    config, read, history = store.read_state(path)
    assert config == {"family": "dpmm", "reg_covar": 1e-6}
    np.testing.assert_array_equal(read["means"], state["means"])
    assert float(read["concentration"]) == 2.5
    assert history["epoch"].tolist() == [1, 2]


def test_same_content_gives_same_bytes(tmp_path):
    maps = {"cosine": np.ones((2, 3, 3), dtype=np.float32)}
    for name in ("a.h5", "b.h5"):
        store.write_maps(tmp_path / name, {}, maps, {"cosine": np.ones(2, dtype=np.float32)})
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_scores_come_back_without_the_image_scores(tmp_path):
    path = tmp_path / "scores.h5"
    store.write_maps(path, {}, {"cosine": np.ones((2, 3, 3), np.float32)}, {"cosine": np.ones(2, np.float32)})
    assert {name: maps.shape for name, maps in store.read_maps(path).items()} == {"cosine": (2, 3, 3)}


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"There is no file .*none\.h5"), store.reading(tmp_path / "none.h5"):
        pass


def test_corrupt_file_is_named(tmp_path):
    path = tmp_path / "bad.h5"
    path.write_bytes(b"not HDF5")
    with pytest.raises(InputError, match="not a readable HDF5 file"), store.reading(path):
        pass


def test_another_kind_of_file_is_refused(tmp_path):
    path = tmp_path / "scores.h5"
    store.write_maps(path, {}, {}, {})
    with pytest.raises(InputError, match="holds scores, but model was expected"), store.reading(path, "model"):
        pass


def test_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "scores.h5"
    store.write_maps(path, {}, {}, {})
    path.write_bytes(path.read_bytes().replace(b"dinodp scores 2", b"dinodp scores 99")[:-1])
    with pytest.raises(InputError, match="format version 99"), store.reading(path):
        pass
