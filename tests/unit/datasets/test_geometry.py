import nibabel as nib
import numpy as np
import pytest
from scan_phantoms import AFFINE, ORIENTATIONS, SHAPE, head, oblique, reoriented

from dinodp.datasets.geometry import VolumeGeometry, require_affine
from dinodp.errors import InputError
from dinodp.scans.writing.regions import find_regions

AXES = (0, 1, 2)


@pytest.mark.parametrize("axis", AXES)
def test_every_orientation_gives_the_same_stack_and_comes_back(axis):
    voxels, anisotropic = head(0), AFFINE @ np.diag([1, 1.5, 0.6, 1])
    for affine in (anisotropic, oblique(anisotropic)):
        first = VolumeGeometry(SHAPE, affine, axis)
        expected = first.to_stack(voxels)
        for orientation in ORIENTATIONS:
            stored, placed = reoriented(voxels, affine, orientation)
            geometry = VolumeGeometry(stored.shape, placed, axis)
            np.testing.assert_array_equal(geometry.to_stack(stored), expected)
            np.testing.assert_array_equal(geometry.from_stack(expected), stored)
            np.testing.assert_allclose(geometry.spacing, first.spacing)
            np.testing.assert_allclose(geometry.canonical_affine, affine, atol=1e-9)
            assert geometry.voxel_ml == pytest.approx(2 * 3 * 1.2 / 1000)


def test_stack_is_upright():
    voxels = np.zeros(SHAPE)
    voxels[-1, -1, 3] = 1  # right, front
    stack = VolumeGeometry(SHAPE, AFFINE, 2).to_stack(voxels)
    assert stack.shape == (SHAPE[2], SHAPE[1], SHAPE[0])
    assert np.argwhere(stack).tolist() == [[3, 0, SHAPE[0] - 1]]  # first row is the front, last column the right
    coronal = VolumeGeometry(SHAPE, AFFINE, 1).to_stack(voxels)
    assert np.argwhere(coronal).tolist() == [[SHAPE[1] - 1, SHAPE[2] - 1 - 3, SHAPE[0] - 1]]  # first row is the top


def test_slices_are_numbered_as_on_disk():
    for orientation in ORIENTATIONS:
        stored, affine = reoriented(np.zeros(SHAPE), AFFINE, orientation)
        geometry = VolumeGeometry(stored.shape, affine, 2)
        stack = np.zeros((SHAPE[2], SHAPE[1], SHAPE[0]))
        stack[5] = 1
        axis = int(orientation[2, 0])  # where the third axis went
        (number,) = np.unique(np.argwhere(geometry.from_stack(stack))[:, axis])
        assert geometry.slice_on_disk(5) == number


def test_two_dimensional_volume():
    voxels = np.arange(20.0).reshape(4, 5)
    geometry = VolumeGeometry((4, 5), np.diag([2.0, 3.0, 7.0, 1.0]), 2)
    assert geometry.spacing == (7.0, 3.0, 2.0)
    np.testing.assert_array_equal(geometry.from_stack(geometry.to_stack(voxels)), voxels)


@pytest.mark.parametrize("bad", [np.diag([1.0, 1, 0, 1]), np.full((4, 4), np.nan), np.zeros((4, 4))])
def test_an_affine_that_says_nothing_is_refused(bad):
    with pytest.raises(InputError, match=r"scan.nii has an affine that cannot be inverted"):
        require_affine(bad, "scan.nii")


def test_regions_lie_at_the_same_place_in_mm_whatever_the_orientation():
    mask = np.zeros(SHAPE, dtype=bool)
    mask[3:6, 10:12, 7] = True  # 6 voxels of 8 mm^3
    mask[20:22, 30:32, 20:24] = True  # 16
    mask[22, 32, 24] = True  # touches the second at a corner
    scores = np.where(mask, 2.0, 0.0).astype(np.float32)
    scores[21, 31, 23] = 5
    affine = oblique(AFFINE)
    centre = np.argwhere(mask & (np.arange(SHAPE[0]) >= 20)[:, None, None]).mean(axis=0)
    for orientation in ORIENTATIONS:
        stored_mask, placed = reoriented(mask, affine, orientation)
        stored_scores, _ = reoriented(scores, affine, orientation)
        count, regions = find_regions(stored_scores, stored_mask, VolumeGeometry(stored_mask.shape, placed, 2), 5)
        assert count == 2
        assert [region.size for region in regions] == [17, 6]
        np.testing.assert_allclose(regions[0].centroid, nib.affines.apply_affine(affine, centre), atol=0.01)
        np.testing.assert_allclose(nib.affines.apply_affine(placed, regions[0].centre), regions[0].centroid, atol=0.05)
        assert regions[0].volume_ml == pytest.approx(0.136)
        assert regions[0].max_score == 5
        assert regions[0].mean_score == pytest.approx((16 * 2 + 5) / 17)
        assert regions[1].mean_score == 2


def test_regions_of_an_image_and_of_nothing():
    mask = np.zeros((6, 8), dtype=bool)
    assert find_regions(np.zeros((6, 8), np.float32), mask, None, 3) == (0, [])
    mask[1, 2:4] = mask[4, 7] = True
    count, regions = find_regions(np.ones((6, 8), np.float32), mask, None, 1)
    assert count == 2
    assert (regions[0].size, regions[0].centre, regions[0].centroid, regions[0].volume_ml) == (2, (1, 2.5), None, None)
