"""Volumes in any of the 48 orientations: what is cut from them goes back to where it was."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinodp.datasets.geometry import VolumeGeometry, require_affine, same_grid
from dinodp.datasets.volumes import open_nifti, open_volume
from dinodp.errors import InputError

SHAPES = st.tuples(*[st.integers(1, 5)] * 3)
AXES = st.integers(0, 2)
ORIENTATIONS = st.sampled_from(list(product(permutations(range(3)), product([1, -1], repeat=3))))
SIZES = st.tuples(*[st.sampled_from([0.3, 1.0, 4.5])] * 3)
ANGLES = st.floats(-0.3, 0.3)


@st.composite
def affines(draw):
    """Affines [4, 4]: an orientation, voxel sizes, a slight rotation, an origin."""
    order, signs = draw(ORIENTATIONS)
    matrix = np.zeros((3, 3))
    matrix[list(order), range(3)] = np.multiply(signs, draw(SIZES))
    angle = draw(ANGLES)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ matrix, draw(st.tuples(*[st.floats(-99, 99)] * 3))
    return affine


def numbered(shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@given(SHAPES, affines(), AXES)
def test_a_stack_goes_back_to_the_voxels_that_it_came_from(shape, affine, axis):
    geometry = VolumeGeometry(shape, affine, axis)
    stack = geometry.to_stack(numbered(shape))
    assert stack.shape == geometry.stack_shape
    np.testing.assert_array_equal(geometry.from_stack(stack), numbered(shape))
    assert np.prod(geometry.spacing) / 1000 == pytest.approx(geometry.voxel_ml)


@given(SHAPES, affines(), AXES, st.data())
def test_a_slice_is_the_one_that_the_file_calls_so(shape, affine, axis, data):
    geometry = VolumeGeometry(shape, affine, axis)
    index = data.draw(st.integers(0, geometry.stack_shape[0] - 1))
    on_disk = int(np.flatnonzero(nib.orientations.io_orientation(affine)[:, 0] == axis)[0])
    expected = np.take(numbered(shape), geometry.slice_on_disk(index), axis=on_disk)
    assert sorted(expected.ravel()) == sorted(geometry.to_stack(numbered(shape))[index].ravel())


@given(SHAPES, affines(), AXES)
def test_the_same_voxels_stored_in_another_order_lie_on_the_same_grid(shape, affine, axis):
    image = nib.Nifti1Image(numbered(shape), affine)
    canonical = nib.as_closest_canonical(image)
    first, second = (VolumeGeometry(one.shape, one.affine, axis) for one in (image, canonical))
    assert same_grid(first, second)
    np.testing.assert_array_equal(
        first.to_stack(numbered(shape)), second.to_stack(np.asarray(canonical.dataobj, dtype=np.float32))
    )


@given(SHAPES, affines(), AXES, st.sampled_from([np.uint8, np.int16, np.float32]), st.sampled_from([".nii", ".nii.gz"]))
def test_a_nifti_file_is_read_as_it_was_written(tmp_path_factory, shape, affine, axis, kind, suffix):
    path = tmp_path_factory.getbasetemp() / f"volume{suffix}"
    voxels = (numbered(shape) % 120).astype(kind)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.voxels(), voxels)
    np.testing.assert_allclose(volume.geometry(axis).affine, affine, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(open_nifti(path).geometry(axis).from_stack(volume.stack(axis)), voxels)


@given(affines(), st.integers(0, 2), st.sampled_from([0.0, np.nan, np.inf]))
def test_an_affine_that_says_no_place_is_refused(affine, column, value):
    affine[:3, column] = value
    with pytest.raises(InputError, match="affine that cannot be inverted"):
        require_affine(affine, "A volume")
