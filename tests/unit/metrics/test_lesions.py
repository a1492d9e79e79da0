"""FROC by hand, and its properties."""

import numpy as np
import pytest

from dinodp.metrics.definitions import lesion_sensitivity
from dinodp.metrics.lesions import LesionCounter, region_thresholds

THRESHOLDS = np.array([8.5, 6.5, 4.5, 2.5, 0.5])


def two_scans():
    """A scan with two lesions, one found at 8 and one at 4 with false regions at 7 and 5; a healthy one with one at 6.

    At 0.5 the false region of 5 and the one of 3 are joined by a bridge of 1.
    """
    first, lesion = np.zeros((7, 9), np.float32), np.zeros((7, 9), bool)
    lesion[0, 0:2] = lesion[1, 2] = True  # one lesion: it touches at a corner
    lesion[6, 0] = True
    first[0, 1], first[6, 0] = 8, 4
    first[0, 8], first[6, 4], first[6, 6], first[6, 5] = 7, 5, 3, 1
    healthy = np.zeros((7, 9), np.float32)
    healthy[3, 3:5] = 6
    return (first, lesion), (healthy, np.zeros_like(lesion))


@pytest.mark.parametrize("stacked", [False, True])
def test_by_hand(stacked):
    counter = LesionCounter(THRESHOLDS, 2)
    for subject, (scores, lesion) in enumerate(two_scans()):
        counter.add(scores[None] if stacked else scores, lesion[None] if stacked else lesion, subject)
    curve = counter.curve()
    assert curve["sensitivity"].tolist() == [0, 0.5, 0.5, 1, 1]  # one of two lesions from 8, both from 4
    # false regions in both scans: none; 7; 7, 5, 6; 7, 5, 3, 6; and at 0.5 the two that a bridge joins are one
    assert curve["false_regions"].tolist() == [0, 0.5, 1.5, 2, 1.5]
    assert counter.values() == {"lesion_sensitivity_1": 0.5, "lesion_sensitivity_2": 1.0, "lesion_sensitivity_4": 1.0}
    resampled = counter.replicates(np.array([[1.0, 1.0], [2.0, 0.0]]))
    assert resampled["lesion_sensitivity_2"].tolist() == [1.0, 0.5]  # of the first alone: 0, 1, 2, 3, 2 per scan
    assert resampled["lesion_sensitivity_1"].tolist() == [0.5, 0.5]


def test_slices_of_a_volume_are_joined():
    scores, lesion = np.zeros((2, 3, 4, 4), np.float32)[0], np.zeros((3, 4, 4), bool)
    lesion[:, 1, 1] = True  # one lesion through all slices
    scores[2, 1, 1] = 5
    volume, slices = LesionCounter(np.array([4.0]), 1), LesionCounter(np.array([4.0]), 1)
    volume.add(scores, lesion)
    for index in range(3):
        slices.add(scores[index], lesion[index])
    assert volume.curve()["sensitivity"].tolist() == [1.0]
    assert slices.curve()["sensitivity"].tolist() == pytest.approx([1 / 3])


def test_pixels_that_do_not_count_hold_no_false_region_but_lesions_do():
    (scores, lesion), _ = two_scans()
    counter = LesionCounter(THRESHOLDS, 1)
    counter.add(scores, lesion, counted=np.zeros_like(lesion))
    assert counter.curve()["false_regions"].tolist() == [0] * 5
    assert counter.curve()["sensitivity"].tolist() == [0, 0.5, 0.5, 1, 1]


def test_the_part_of_the_curve_after_regions_merge_does_not_count():
    false, found = np.array([0.0, 3.0, 0.5]), np.array([0.2, 0.6, 1.0])
    assert lesion_sensitivity.compute(false, found).tolist() == [0.2, 0.2, 1.0]
    assert lesion_sensitivity.compute(np.array([3.0]), np.array([0.7])).tolist() == [0, 0, 0.7]


def test_many_curves_at_once_are_each_by_itself():
    generator = np.random.default_rng(0)
    false, found = generator.uniform(0, 6, (50, 20)), np.sort(generator.uniform(size=(50, 20)), axis=1)
    together = lesion_sensitivity.compute(false, found)
    for row, curve, sensitivity in zip(together, false, found, strict=True):
        for value, limit in zip(row, (1, 2, 4), strict=True):
            first = next((index for index, number in enumerate(curve) if number > limit), len(curve))
            assert value == (sensitivity[first - 1] if first else 0)


def test_what_equals_a_threshold_is_not_above_it():
    (scores, lesion), _ = two_scans()
    counter = LesionCounter(np.array([8.0, 7.0, 5.0]), 1)
    counter.add(scores, lesion)
    assert counter.curve()["sensitivity"].tolist() == [0, 0.5, 0.5]
    assert counter.curve()["false_regions"].tolist() == [0, 0, 1]


def test_without_a_lesion_there_is_no_curve():
    counter = LesionCounter(THRESHOLDS, 1)
    counter.add(*two_scans()[1])
    assert counter.curve() == counter.values() == counter.replicates(np.ones((2, 1))) == {}


def test_thresholds_fall_and_sensitivity_rises():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(20, 30, 30)).astype(np.float32)
    thresholds = region_thresholds(scores)
    assert (np.diff(thresholds) <= 0).all()
    assert np.mean(scores > thresholds[-1]) == pytest.approx(0.5, abs=0.01)
    counter = LesionCounter(thresholds, 1)
    for part in scores:
        counter.add(part, generator.random((30, 30)) < 0.01)
    assert (np.diff(counter.curve()["sensitivity"]) >= 0).all()
    assert list(counter.values().values()) == sorted(counter.values().values())
