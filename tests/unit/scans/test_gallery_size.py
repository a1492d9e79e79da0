"""The gallery can be e-mailed: under 20 MB for 20 volumes of the size of a brain at 1 mm, noisy ones too."""

import numpy as np
import pytest
from scan_phantoms import AFFINE, FAST_FIT, WINDOW, head, save
from scipy import ndimage

from dinodp.cli import main
from dinodp.scans.writing.stack import MOST_SLICES

MOST_BYTES = 20e6 / 20  # of a volume
MOST_OF_PAGE = 100_000  # bytes of what does not grow with the scans
FACTOR = 5  # 180 x 220 x 150 voxels, as brains at 1 mm have


def large(seed: int) -> np.ndarray:
    """A phantom at the size of a brain, with noise, which compresses badly, and a lesion."""
    voxels = ndimage.zoom(head(seed, lesion=True), FACTOR, order=0)
    noise = np.random.default_rng(seed).normal(0, 30, voxels.shape)
    return np.where(voxels > 0, voxels + noise, 0).clip(0).astype(np.int16)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """The bytes of galleries of one and of two volumes, every slice of which is scored."""
    folder, affine = tmp_path_factory.mktemp("size"), AFFINE.copy()
    affine[:3, :3] /= 2
    for seed in range(2):
        save(folder / f"healthy/h{seed}.nii.gz", large(seed), affine)
        save(folder / f"new/n{seed}.nii.gz", large(seed + 5), affine)
    model = folder / "m.h5"
    options = [*FAST_FIT, *WINDOW, "--slice-step", "16"]
    assert main(["fit", str(folder / "healthy"), "--out", str(model), *options]) == 0
    sizes = []
    for name in ("new/n0.nii.gz", "new"):
        assert main(["predict", str(folder / name), "--model", str(model), "--out", str(folder / "out")]) == 0
        sizes.append((folder / "out" / "gallery.html").stat().st_size)
        (folder / "out").rename(folder / f"out{len(sizes)}")
    return folder, sizes


def test_bytes_per_volume(gallery):
    _, (one, two) = gallery
    assert one - (two - one) < MOST_OF_PAGE
    assert two - one < MOST_BYTES


def test_all_slices_are_in_it(gallery):
    """The bound is that of a full stack."""
    slices = (gallery[0] / "out1/slices.csv").read_text().count("\n") - 1
    assert slices > 0.9 * MOST_SLICES
