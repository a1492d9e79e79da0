"""Pictures of slices: sides, place, and the scale of their colours."""

import numpy as np
import pytest
from scan_phantoms import AFFINE, FLIPPED, SHAPE, head, oblique, reoriented

from dinodp.datasets.geometry import VolumeGeometry
from dinodp.scans.detecting.calibration import Calibration
from dinodp.scans.detecting.tail import Tail
from dinodp.scans.writing.views import LEGEND, OUTLINE, Scale, View, sides_of

CALIBRATION = Calibration(
    {"fpr10": 1.0, "fpr05": 1.5, "fpr01": 2.0},
    {name: [0.1] for name in ("fpr10", "fpr05", "fpr01")},
    [1.0],
    (0.0, 9.0),
    Tail(100, [0.0, 3.0], [50, 0]),
)


def test_the_threshold_has_its_place_between_the_colours():
    scale = Scale.of(CALIBRATION, 2.0)
    assert (scale.low, scale.high, scale.mark) == (1.0, 5.0, 0.25)
    assert Scale.of(CALIBRATION, -3.0).mark == 0
    assert Scale.of(CALIBRATION, 99.0).mark == 1


@pytest.mark.parametrize(
    ("axis", "sides"), [(0, ("P", "A", "S", "I")), (1, ("R", "L", "S", "I")), (2, ("R", "L", "A", "P"))]
)
def testsides_of_are_those_that_a_radiologist_expects(axis, sides):
    for affine in (AFFINE, oblique(AFFINE)):
        stored, placed = reoriented(head(0), affine, FLIPPED)
        assert sides_of(VolumeGeometry(stored.shape, placed, axis)) == sides


def test_a_slice_has_its_place_in_mm():
    for affine in (AFFINE, reoriented(head(0), AFFINE, FLIPPED)[1]):
        shape = SHAPE if affine is AFFINE else head(0).transpose(1, 2, 0).shape
        geometry = VolumeGeometry(shape, affine, 2)
        assert geometry.place_of_slice(0) == pytest.approx(AFFINE[2, 3])
        assert geometry.place_of_slice(7) == pytest.approx(AFFINE[2, 3] + 14)


def test_a_picture_carries_letters_place_and_scale():
    base = np.full((200, 160, 3), 90, np.uint8)
    overlay = np.zeros((200, 160, 4), np.uint8)
    view = View(12, 3.5, base, overlay, ("R", "L", "A", "P"), "z 4.0 mm")
    shown = view.blended(Scale.of(CALIBRATION, 2.0))
    assert shown.shape == (200 + LEGEND, 160, 3)
    picture, legend = shown[:200], shown[200:]
    white = np.argwhere((picture == 255).all(axis=2))
    for rows, columns in ((slice(90, 110), slice(0, 14)), (slice(90, 110), slice(146, 160)),
                          (slice(0, 16), slice(70, 90)), (slice(184, 200), slice(70, 90))):  # fmt: skip
        assert (picture[rows, columns] > 180).all(axis=2).any()
    assert len(white) < 400
    marked = np.argwhere((legend[18:34] == OUTLINE).all(axis=2))
    assert abs(marked[:, 1].mean() - (3 + 0.25 * 153)) < 2
    image = View(0, 3.5, base, overlay).blended(Scale.of(CALIBRATION, 2.0))
    np.testing.assert_array_equal(image[:200], base)  # no letters without a place in the body
