from dataclasses import replace

import numpy as np
import pytest
from scan_phantoms import AFFINE, SHAPE, head, photo, save, save_photo
from scipy import ndimage

from dinodp.backbones import load_backbone
from dinodp.errors import InputError
from dinodp.metrics.anomaly_maps import anomaly_map
from dinodp.scans.detecting.calibration import Calibration, evenly
from dinodp.scans.detecting.canvas import Placement, enlarge, interpolation, pictures, slice_choice
from dinodp.scans.detecting.healthy import HealthyRange, Measures, require_sensible_axis
from dinodp.scans.reading.folder import ReadingOptions, read_scan

PLAIN = ReadingOptions()


def volume(tmp_path, voxels=None, affine=AFFINE):
    return read_scan("x", save(tmp_path / "x.nii.gz", head(0) if voxels is None else voxels, affine), PLAIN)


def healthy_range(scan):
    return HealthyRange.over(["x"], [Measures.of(scan)])


def test_interpolation_is_linear_and_constant_beyond_the_ends():
    weights = interpolation(np.array([-1.0, 0.0, 0.25, 2.0, 9.0]), 3)
    np.testing.assert_allclose(weights @ np.array([10.0, 20.0, 40.0]), [10, 10, 12.5, 40, 40])
    np.testing.assert_allclose(interpolation(np.array([-2.0, 3.0]), 1), [[1], [1]])


@pytest.mark.parametrize("size", [(80, 80), (80, 120), (105, 84)])
def test_an_images_map_is_the_patch_map_enlarged(tmp_path, size):
    """These sizes become multiples of the patch: nothing is cropped, and it is torch's bilinear interpolation."""
    backbone = load_backbone("classical", resolution=112)
    scan = read_scan("x", save_photo(tmp_path / "x.png", photo(0, size=size)), PLAIN)
    placement = Placement.of(scan, healthy_range(scan))
    (picture,) = pictures(scan, [0], placement, (0, 255))
    rows, columns = (side // 14 for side in backbone.prepare(picture).shape[1:])
    patch_map = np.random.default_rng(0).random((1, rows, columns), dtype=np.float32)
    positions = placement.positions(size, backbone)
    found = enlarge(patch_map, positions, [0], 1)[0]
    assert (rows * 14, columns * 14) == tuple(side * 112 / min(size) for side in size)
    np.testing.assert_allclose(found, anomaly_map(patch_map[0], size), atol=1e-5)


def test_what_the_crop_cuts_off_has_the_last_patchs_score(tmp_path):
    backbone = load_backbone("classical", resolution=112)
    scan = read_scan("x", save_photo(tmp_path / "x.png", photo(0, size=(80, 89))), PLAIN)  # 112 x 124: 8 columns
    placement = Placement.of(scan, healthy_range(scan))
    patch_map = np.arange(64, dtype=np.float32).reshape(1, 8, 8)
    found = enlarge(patch_map, placement.positions((80, 89), backbone), [0], 1)[0]
    np.testing.assert_allclose(found[0, -12:], 7)
    assert (np.diff(found[0, 6:74]) > 0).all()


@pytest.mark.parametrize("scale", [(1, 1, 1), (1, 1.6, 1), (0.5, 0.5, 2)])
def test_a_patch_lies_where_its_pixels_lie(tmp_path, scale):
    """A bright square of the slice, seen by the backbone, comes back to the same place."""
    affine = AFFINE @ np.diag([*scale, 1])
    voxels = head(0)
    voxels[head(0) > 0] = 100
    voxels[18:24, 26:32] = 1000
    voxels[head(0) == 0] = 0
    scan = volume(tmp_path, voxels, affine)
    healthy = healthy_range(scan)
    placement = Placement.of(scan, healthy)
    backbone = load_backbone("classical", resolution=448)
    index = SHAPE[2] // 2
    (picture,) = pictures(scan, [index], placement, (0, 1000))
    pixels = backbone.prepare(picture)[0].numpy()
    patch_map = pixels.reshape(32, 14, 32, 14).mean(axis=(1, 3))[None].astype(np.float32)
    found = enlarge(patch_map, placement.positions(scan.values.shape[1:], backbone), [index], SHAPE[2])[index]
    expected = scan.values[index] / 1000
    assert ndimage.center_of_mass(found > 0.5) == pytest.approx(ndimage.center_of_mass(expected > 0.5), abs=0.35)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95


def test_anatomy_has_the_same_size_whatever_the_spacing(tmp_path):
    fine = volume(tmp_path)
    healthy = healthy_range(fine)
    coarse = volume(tmp_path, head(0)[::2, ::2], AFFINE @ np.diag([2, 2, 1, 1]))
    shown = [
        next(pictures(scan, [15], Placement.of(scan, healthy), (0, 800)))[..., 0].astype(float)
        for scan in (fine, coarse)
    ]
    assert shown[0].shape == shown[1].shape == (int(np.ceil(healthy.side / 2)),) * 2
    assert np.corrcoef(shown[0].ravel(), shown[1].ravel())[0, 1] > 0.9


def test_a_shifted_head_gives_the_same_pictures(tmp_path):
    padded = np.pad(head(0), [(0, 9), (6, 0), (0, 0)])
    first, second = volume(tmp_path), volume(tmp_path, padded)
    healthy = healthy_range(first)
    for one, other in zip(
        pictures(first, [10, 15], Placement.of(first, healthy), (0, 800)),
        pictures(second, [10, 15], Placement.of(second, healthy), (0, 800)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_map_between_slices_is_linear_and_zero_outside():
    patches = np.stack([np.full((2, 2), value, np.float32) for value in (2, 6)])
    positions = [np.linspace(0, 1, 4), np.linspace(0, 1, 4)]
    found = enlarge(patches, positions, [2, 6], 9)
    np.testing.assert_allclose(found[:, 0, 0], [0, 0, 2, 3, 4, 5, 6, 0, 0], rtol=1e-6)


def test_slices_are_chosen_by_foreground():
    foreground = np.zeros((10, 4, 4), dtype=bool)
    foreground[2:9] = True
    foreground[5, 1:] = False
    assert slice_choice(foreground, 0.5, 1, 16) == [2, 3, 4, 6, 7, 8]
    assert slice_choice(foreground, 0.5, 4, 16) == [2, 7, 8]  # every fourth, and the last
    assert slice_choice(foreground, 0.9, 1, 160) == [2]  # none is full enough: the fullest


def changed(measures, **values):
    return replace(measures, **values)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"low": -1000.0}, "its values run from -1000 to"),
        ({"low": 0.1, "high": 0.9}, "another modality or scaling"),
        ({"high": 9e5}, "another modality or scaling"),
        ({"spacing": (2.0, 2.0, 4.4)}, "its columns lie 4.4 mm apart, but those of the healthy scans 2 to 2 mm"),
        ({"spacing": (0.9, 2.0, 2.0)}, "its slices lie 0.9 mm apart"),
        ({"extent": 200.0}, "its foreground measures 200 mm within the slices, but the field of view"),
    ],
)
def test_scans_unlike_the_healthy_ones_are_refused(tmp_path, change, sentence):
    scan = volume(tmp_path)
    measures, healthy = Measures.of(scan), healthy_range(scan)
    healthy.require_similar(scan, measures)
    with pytest.raises(InputError, match=sentence):
        healthy.require_similar(scan, changed(measures, **change))


def test_range_survives_json(tmp_path):
    healthy = healthy_range(volume(tmp_path))
    assert HealthyRange.from_json(healthy.to_json()) == healthy


def test_thick_slices_must_be_cut_along_their_axis(tmp_path):
    scan = volume(tmp_path, affine=AFFINE @ np.diag([1, 3, 1, 1]))
    with pytest.raises(InputError, match=r"axial slices measure 2 x 6 mm: cut it along the axis of its thick slices"):
        require_sensible_axis(scan, "axial")


def test_thresholds_are_quantiles_in_which_every_scan_counts_alike():
    generator = np.random.default_rng(0)
    long, short = generator.normal(size=40_000).astype(np.float32), generator.normal(1, 1, 10_000).astype(np.float32)
    calibration = Calibration.of([long, short], [1.0, 2.0])
    pooled = np.concatenate([long, *[short] * 4])
    for name, rate in {"fpr10": 0.1, "fpr05": 0.05, "fpr01": 0.01}.items():
        assert calibration.threshold(name) == pytest.approx(np.quantile(pooled.astype(float), 1 - rate))
        mean = np.mean(calibration.scan_rates[name])
        assert mean == pytest.approx(rate, abs=1e-3)
        assert calibration.scan_rates[name][1] == pytest.approx((short > calibration.threshold(name)).mean())
    assert calibration.map_range[0] < long.min()
    assert Calibration.from_json(calibration.to_json()) == calibration
    with pytest.raises(InputError, match="Unknown threshold 'fpr20'"):
        calibration.threshold("fpr20")


def test_repeated_values_of_a_short_scan_are_taken_from_all_of_it():
    """Scores fall along the scan: the mean rate of the scans is the pooled one all the same."""
    scans = [np.linspace(1, 0, n, dtype=np.float32) for n in (1000, 730)]
    calibration = Calibration.of(scans, [1.0, 2.0])
    for name, rate in {"fpr10": 0.1, "fpr05": 0.05, "fpr01": 0.01}.items():
        assert np.mean(calibration.scan_rates[name]) == pytest.approx(rate, abs=1e-3)
        assert calibration.threshold(name) == pytest.approx(1 - rate, abs=2e-3)


def test_scan_threshold_is_by_rank():
    calibration = Calibration.of([np.arange(10, dtype=np.float32)] * 19, np.arange(19.0))
    assert calibration.scan_threshold(0.05) == 18  # rank ceil(0.95 * 20) = 19 of 19
    assert calibration.scan_threshold(0.5) == 9
    assert calibration.scan_threshold(0.001) == 18  # no lower rate can be held


def test_evenly():
    np.testing.assert_array_equal(evenly(np.arange(10), 4), [0, 2, 5, 7])
    np.testing.assert_array_equal(evenly(np.arange(3), 4), [0, 0, 1, 2])


