"""Images of any size, depth and content: read as they were written, and constant ones as such."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from dinodp.errors import InputError
from dinodp.images import image_score, read_image, read_lesion, read_mask, read_values, resize_mask

SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
GREY = arrays.arrays(np.uint8, SIDES)
COLOUR = SIDES.flatmap(lambda size: arrays.arrays(np.uint8, (*size, 3)))
DEEP = arrays.arrays(np.uint16, SIDES)
LABELS = arrays.arrays(np.uint8, SIDES, elements=st.sampled_from([*range(15), 255]))
PALETTE = np.array([[0, 0, 0], [58, 58, 58], [200, 10, 9], [255, 255, 255], [0, 1, 1]], dtype=np.uint8)
FORMATS = st.sampled_from([".png", ".tif", ".bmp"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


def written(array, path):
    Image.fromarray(array).save(path)
    return path


@given(GREY, FORMATS)
def test_grey_images_keep_their_values(folder, grey, suffix):
    path = written(grey, folder / f"grey{suffix}")
    np.testing.assert_array_equal(read_image(path), np.repeat(grey[:, :, None], 3, axis=2))


@given(LABELS, FORMATS)
def test_masks_keep_their_labels(folder, labels, suffix):
    path = written(labels, folder / f"labels{suffix}")
    np.testing.assert_array_equal(read_mask(path), labels)
    np.testing.assert_array_equal(read_lesion(path, "gt0"), labels > 0)
    np.testing.assert_array_equal(read_lesion(path, "eq255"), labels == 255)


@given(COLOUR, FORMATS)
def test_colour_images_keep_their_values(folder, colour, suffix):
    np.testing.assert_array_equal(read_image(written(colour, folder / f"colour{suffix}")), colour)


@given(arrays.arrays(np.uint8, SIDES, elements=st.integers(0, len(PALETTE) - 1)), FORMATS)
def test_a_colour_mask_is_zero_where_it_is_black(folder, labels, suffix):
    path = written(PALETTE[labels], folder / f"colour{suffix}")
    np.testing.assert_array_equal(read_mask(path) > 0, labels > 0)


@given(DEEP, st.sampled_from([".png", ".tif"]))
def test_16_bits_are_scaled_by_their_full_range(folder, deep, suffix):
    path = written(deep, folder / f"deep{suffix}")
    np.testing.assert_array_equal(read_values(path), deep)
    assert np.abs(read_image(path)[:, :, 0] - deep / 257).max() <= 0.5
    np.testing.assert_array_equal(read_mask(path) > 0, deep > 0)


FLOATS = st.sampled_from([0.0, 0.25, 1.0, -0.5, 1.5, np.nan, np.inf])


@given(arrays.arrays(np.float32, SIDES, elements=FLOATS))
def test_floating_point_images_lie_between_0_and_1_or_are_refused(folder, values):
    path = written(values, folder / "float.tif")
    if np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1:
        assert np.abs(read_image(path)[:, :, 0] / 255 - values).max() <= 0.5 / 255 + 1e-6
        return
    with pytest.raises(InputError, match="holds values"):
        read_image(path)


@given(GREY, SIDES)
def test_resizing_a_mask_invents_no_value(grey, size):
    found = resize_mask(grey, size)
    assert found.shape == size
    assert set(np.unique(found)) <= set(np.unique(grey))
    np.testing.assert_array_equal(resize_mask(grey, grey.shape), grey)


@given(st.integers(1, 9), st.floats(1e-3, 1), st.floats(-1e6, 1e6, width=32))
def test_the_score_of_a_constant_map_is_its_value(side, fraction, value):
    maps = np.full((2, side, side), value, dtype=np.float32)
    np.testing.assert_allclose(image_score(maps, fraction), value, rtol=1e-6)
