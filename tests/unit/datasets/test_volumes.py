"""One way to read volumes and to window them, for data sets and own scans."""

import numpy as np
import pytest
from scan_phantoms import AFFINE, ORIENTATIONS, SHAPE, head, oblique, reoriented, save, write_series

from dinodp.datasets.dicom import read_placed_series, read_series
from dinodp.datasets.geometry import VolumeGeometry, same_grid
from dinodp.datasets.volumes import AXES, grey_slice, open_nifti, open_volume, read_nifti, to_grey, window_of
from dinodp.errors import InputError
from dinodp.scans.reading.folder import ReadingOptions, read_scan


@pytest.mark.parametrize("axis", AXES)
def test_a_data_set_and_an_own_scan_see_the_same_slices(tmp_path, axis):
    for number, orientation in enumerate(ORIENTATIONS[::9]):
        path = save(tmp_path / f"{number}.nii.gz", *reoriented(head(1), oblique(AFFINE), orientation))
        volume = open_volume(path)
        scan = read_scan("x", path, ReadingOptions(axis))
        np.testing.assert_array_equal(volume.stack(AXES[axis]), scan.values)
        assert volume.geometry(AXES[axis]).stack_shape == scan.values.shape


def test_the_shape_is_known_without_the_voxels(tmp_path):
    path = save(tmp_path / "x.nii", *reoriented(head(1), AFFINE, ORIENTATIONS[20]))
    path.write_bytes(path.read_bytes()[:1000])
    volume = open_volume(path)
    assert volume.geometry(AXES["axial"]).stack_shape == (SHAPE[2], SHAPE[1], SHAPE[0])
    with pytest.raises(InputError, match=r"x.nii is damaged: its voxels cannot be read"):
        volume.voxels()


def test_the_same_grid_stored_otherwise():
    first = VolumeGeometry(SHAPE, AFFINE, 2)
    for orientation in ORIENTATIONS[::7]:
        stored, affine = reoriented(head(0), AFFINE, orientation)
        assert same_grid(VolumeGeometry(stored.shape, affine, 2), first)
    assert not same_grid(VolumeGeometry(SHAPE, AFFINE * 1.1, 2), first)
    assert not same_grid(VolumeGeometry((36, 44, 31), AFFINE, 2), first)


def test_one_volume_of_several(tmp_path):
    path = save(tmp_path / "x.nii.gz", np.stack([head(0), head(1)], axis=3))
    np.testing.assert_array_equal(open_nifti(path, 1).voxels(), head(1))
    np.testing.assert_array_equal(read_nifti(path, 0)[0], head(0))
    with pytest.raises(InputError, match="has the shape 36 x 44 x 30 x 2; a volume must have three dimensions"):
        open_volume(path)


def test_a_series_is_read_once_for_both(tmp_path):
    pytest.importorskip("pydicom")
    folder = write_series(tmp_path / "s", head(2), AFFINE)
    voxels, _ = read_placed_series(folder)
    np.testing.assert_array_equal(voxels, read_series(folder).transpose(1, 0, 2))
    np.testing.assert_array_equal(voxels, head(2))


def test_window():
    values = np.linspace(0, 1000, 1001, dtype=np.float32)
    assert window_of(values, (0.5, 99.5), "x") == pytest.approx((5, 995))
    few = np.zeros(10_000, np.float32)
    few[0] = 7
    assert window_of(few, (0.5, 99.5), "x") == (0, 7)  # a few bright voxels
    with pytest.raises(InputError, match="x has no contrast: every value of its foreground is 3"):
        window_of(np.full(9, 3, np.float32), (0.5, 99.5), "x")


def test_grey_values_are_clipped_and_the_background_is_black():
    values = np.array([[-5.0, 0, 5, 10, 20]], np.float32)
    np.testing.assert_array_equal(to_grey(values, 0, 10), [[0, 0, 128, 255, 255]])
    np.testing.assert_array_equal(grey_slice(values, values != 20, (0.0, 10.0)), [[0, 0, 128, 255, 0]])
