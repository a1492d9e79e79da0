"""The conventions of scikit-learn that can apply to a detector whose scans are no rows of numbers."""

import copy
import pickle

import numpy as np
import pytest
from scan_phantoms import FAST, head, healthy_folder, save
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted

from dinodp.scans import AnomalyDetector

TINY = {**FAST, "backbone": "tests/data/hub_parity_square_448", "resolution": 112}
CHECKS = (
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_estimators_unfitted",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
)


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_of_scikit_learn(name):
    getattr(estimator_checks, name)("AnomalyDetector", AnomalyDetector(**FAST))


def test_parameters_survive_a_clone_and_a_pickle():
    detector = AnomalyDetector(layers=[1, 2], window=(0, 9), method={"family": "k_means", "components": 7}, seed=5)
    for other in (clone(detector), pickle.loads(pickle.dumps(detector)), copy.deepcopy(detector)):
        assert other.get_params() == detector.get_params()
        with pytest.raises(NotFittedError):
            check_is_fitted(other)
        with pytest.raises(NotFittedError, match="The detector is not fitted yet: call fit or load first"):
            other.score_scan("x.png")


@pytest.mark.parametrize("settings", [FAST, TINY], ids=["classical", "transformer"])
def test_a_fitted_detector_survives_a_pickle(settings, tmp_path):
    detector = AnomalyDetector(**settings).fit(healthy_folder(tmp_path / "healthy", 3))
    new = save(tmp_path / "new.nii.gz", head(7, lesion=True))
    for other in (pickle.loads(pickle.dumps(detector)), copy.deepcopy(detector)):
        np.testing.assert_array_equal(other.score_samples([new]), detector.score_samples([new]))
        assert other.offset_ == detector.offset_
    assert not hasattr(clone(detector), "fitted_")
