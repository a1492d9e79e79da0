import numpy as np
from PIL import Image
from scipy import ndimage

from dinodp.metrics.anomaly_maps import anomaly_map


def test_bilinear_as_pillow_does_it():
    patch_map = np.random.default_rng(0).random((5, 7)).astype(np.float32)
    expected = np.asarray(Image.fromarray(patch_map).resize((70, 50), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(anomaly_map(patch_map, (50, 70)), expected, atol=1e-6)


def test_stays_within_the_patch_scores():
    patch_map = np.random.default_rng(0).standard_cauchy((4, 4)).astype(np.float32)
    for sigma in (0.0, 4.0):
        enlarged = anomaly_map(patch_map, (33, 61), sigma)
        assert enlarged.shape == (33, 61)
        assert enlarged.dtype == np.float32
        assert patch_map.min() - 1e-4 <= enlarged.min()
        assert enlarged.max() <= patch_map.max() + 1e-4


def test_a_constant_stays_constant():
    np.testing.assert_allclose(anomaly_map(np.full((3, 3), 2.5, dtype=np.float32), (10, 11), 4.0), 2.5)


def test_smoothing_is_a_gaussian_in_pixels():
    patch_map = np.zeros((8, 8), dtype=np.float32)
    patch_map[3, 4] = 1
    plain = anomaly_map(patch_map, (64, 64))
    np.testing.assert_allclose(anomaly_map(patch_map, (64, 64), 4.0), ndimage.gaussian_filter(plain, 4.0), atol=1e-7)
