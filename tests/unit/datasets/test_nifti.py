"""Real NIfTI files, small ones: orientation, window, padding, masks, and what is refused."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from dinodp.datasets.manifest import read_manifest
from dinodp.datasets.sources import prepare_dataset
from dinodp.errors import InputError

SHAPE = (20, 24, 16)  # right, front, top
LESION = (slice(12, 15), slice(15, 20), slice(7, 10))


def volume(seed=0, shape=SHAPE):
    """A block of "brain" whose intensity rises to the right and front, in RAS axes."""
    values = np.zeros(shape, dtype=np.int16)
    inner = tuple(slice(2, length - 2) for length in shape)
    x, y, z = np.indices(shape)
    values[inner] = (100 + 10 * x + 3 * y + z + np.random.default_rng(seed).integers(0, 5, shape))[inner]
    return values


def save(path, values, orientation="RAS"):
    """Store RAS values with axes in another orientation; the world coordinates stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, np.diag([1.0, 1.0, 1.0, 1.0]))
    target = nib.orientations.axcodes2ornt(orientation)
    image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), target)).to_filename(path)


def segmentation(empty=False):
    labels = np.zeros(SHAPE, dtype=np.uint8)
    if not empty:
        labels[LESION] = 4
    return labels


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "volumes"
    for index in range(3):
        save(folder / f"train/a{index}_t1.nii.gz", volume(index))
    save(folder / "valid/v_t1.nii.gz", volume(7, (22, 18, 16)))
    save(folder / "test/t_t1.nii.gz", volume(8))
    save(folder / "test/t_seg.nii.gz", segmentation())
    return folder


def prepare(root, folder, **options):
    return read_manifest(prepare_dataset("x", {"source": "nifti", "root": str(root), **options}, folder))


def test_slices_masks_and_subjects(tmp_path, root):
    frame = prepare(root, tmp_path / "out", slice_step=2)
    assert set(zip(frame["height"], frame["width"], strict=True)) == {(24, 24)}
    assert frame["subject"].unique().tolist() == ["a0", "a1", "a2", "v", "t"]
    test = frame[frame["split"] == "test"].set_index("slice")
    assert test.index.tolist() == ["2", "4", "6", "8", "10", "12"]
    assert test["label"].to_dict()["8"] == "anomalous"
    assert (test["label"] == "anomalous").sum() == 1
    mask = np.asarray(Image.open(test.loc["8", "mask"]))
    expected = np.pad(np.rot90(segmentation()[:, :, 8] > 0), ((0, 0), (2, 2))) * 255
    np.testing.assert_array_equal(mask, expected)


def test_picture_is_upright(tmp_path, root):
    frame = prepare(root, tmp_path / "out")
    picture = np.asarray(Image.open(frame[frame["slice"] == "8"]["image"].iloc[0])).astype(int)
    middle = picture[4:20, 6:18]
    assert middle[:, -1].mean() > middle[:, 0].mean() + 50  # brighter to the right
    assert middle[0].mean() > middle[-1].mean() + 20  # brighter at the front, which is at the top
    assert picture[0].max() == 0


@pytest.mark.parametrize("orientation", ["LPS", "PIR", "ASL"])
def test_orientation_on_disk_does_not_matter(tmp_path, root, orientation):
    before = prepare(root, tmp_path / "ras")
    for path in root.rglob("*.nii.gz"):
        save(path, np.asarray(nib.load(path).dataobj), orientation)
    after = prepare(root, tmp_path / "other")
    assert nib.aff2axcodes(nib.load(root / "test/t_t1.nii.gz").affine) == tuple(orientation)
    assert after["image_sha256"].tolist() == before["image_sha256"].tolist()
    for first, second in zip(before["mask"], after["mask"], strict=True):
        assert not first or np.array_equal(np.asarray(Image.open(first)), np.asarray(Image.open(second)))


def test_window_comes_from_the_foreground(tmp_path, root):
    frame = prepare(root, tmp_path / "out", window_percentiles=[0, 100])
    pictures = [np.asarray(Image.open(path)) for path in frame[frame["subject"] == "a0"]["image"]]
    assert max(picture.max() for picture in pictures) == 255
    values = volume(0)
    foreground = values[values != 0]
    expected = np.round((values[:, :, 8] - foreground.min()) / np.ptp(foreground) * 255) * (values[:, :, 8] != 0)
    found = np.asarray(Image.open(frame[(frame["subject"] == "a0") & (frame["slice"] == "8")]["image"].iloc[0]))
    np.testing.assert_allclose(found[:, 2:22], np.rot90(expected), atol=1)


def test_other_axes(tmp_path, root):
    frame = prepare(root, tmp_path / "out", axis="coronal", min_foreground=0.2)
    assert set(frame["height"]) == {22}
    assert len(frame[frame["subject"] == "a0"]) == 20


def broken(values):
    result = values.astype(np.float32)
    result[5, 5, 5] = np.nan
    return result


@pytest.mark.parametrize(
    ("break_it", "options", "sentence"),
    [
        (
            lambda r: (r / "test/t_seg.nii.gz").unlink(),
            {},
            r"test volume .*t_t1.nii.gz has no segmentation t_seg.nii.gz",
        ),
        (lambda r: save(r / "test/t_seg.nii.gz", segmentation()[:-1]), {}, "does not lie on the grid of"),
        (lambda r: save(r / "test/t_seg.nii.gz", -segmentation().astype(np.int16)), {}, "must hold labels 0, 1, 2"),
        (
            lambda r: save(r / "train/a0_t1.nii.gz", broken(volume())),
            {},
            "a0_t1.nii.gz holds 1 voxels that are not finite",
        ),
        (
            lambda r: save(r / "train/a0_t1.nii.gz", np.zeros(SHAPE, np.int16)),
            {},
            "a0_t1.nii.gz has no foreground",
        ),
        (
            lambda r: save(r / "train/a0_t1.nii.gz", np.full(SHAPE, 7, np.int16)),
            {},
            "a0_t1.nii.gz has no contrast: every value of its foreground is 7",
        ),
        (lambda r: (r / "train/a0_t1.nii.gz").write_bytes(b"x"), {}, "a0_t1.nii.gz is not a readable NIfTI volume"),
        (
            lambda r: (r / "train/a0_t1.nii.gz").write_bytes((r / "train/a0_t1.nii.gz").read_bytes()[:1500]),
            {},
            "a0_t1.nii.gz is damaged",
        ),
        (
            lambda r: nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.int16), np.eye(4)).to_filename(r / "valid/v_t1.nii.gz"),
            {},
            "has the shape 4 x 4 x 4 x 2; a volume must have three dimensions",
        ),
        (lambda r: [p.unlink() for p in (r / "valid").iterdir()], {}, r"valid holds no volume named \*_t1.nii.gz"),
        (
            lambda r: (r / "valid").rename(r / "val"),
            {},
            "there is no folder .*valid; the root must hold train, valid, test",
        ),
        (lambda r: None, {"axis": "transversal"}, "axis: 'transversal' is not allowed; choose 'sagittal'"),
        (lambda r: None, {"side": 20}, "side is 20 pixels, but the largest slice needs 24"),
        (lambda r: None, {"slice_step": 0}, "slice_step: 0 is below the least allowed, 1"),
        (lambda r: None, {"window_percentiles": [99, 1]}, "window_percentiles: it must be two rising numbers"),
        (lambda r: None, {"min_foreground": 0.99}, r"no slice whose foreground covers 99% \(key min_foreground\)"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, root, break_it, options, sentence):
    break_it(root)
    with pytest.raises(InputError, match=sentence):
        prepare(root, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
