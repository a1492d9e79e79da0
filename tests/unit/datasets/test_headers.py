"""What a NIfTI header says of units, sizes, orientation and kind is used or told; real files."""

import struct

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scan_phantoms import AFFINE, FLIPPED, SHAPE, SPACING, head, oblique, reoriented, save

from dinodp.datasets.geometry import VolumeGeometry, common_frame, same_grid
from dinodp.datasets.manifest import read_manifest
from dinodp.datasets.sources import prepare_dataset
from dinodp.datasets.volumes import open_mask, open_nifti
from dinodp.errors import InputError


def edited(path, edit):
    """A NIfTI file (.nii) whose header was changed byte by byte; the place and format are those of NIfTI-1."""
    content = bytearray(save(path, head(0)).read_bytes())
    for place, kind, value in edit:
        struct.pack_into(kind, content, place, value)
    path.write_bytes(content)
    return path


NO_FORM = [(252, "<h", 0), (254, "<h", 0)]  # qform_code, sform_code


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("micron", 1000), ("meter", 0.001), ("unknown", 1)])
def test_lengths_are_mm_in_every_unit(tmp_path, unit, factor):
    stored = np.diag([factor, factor, factor, 1]) @ AFFINE
    image = nib.Nifti1Image(head(0), stored)
    image.header.set_xyzt_units(unit, "sec")
    nib.save(image, tmp_path / "x.nii.gz")
    np.testing.assert_allclose(open_nifti(tmp_path / "x.nii.gz").affine, AFFINE, rtol=1e-5)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        ([*NO_FORM, (80, "<f", 0.0)], "x.nii has a voxel size of 0 in its header: how large its voxels are is not"),
        ([(254, "<h", 0), (252, "<h", 1), (84, "<f", 0.0)], "has a voxel size of 0 in its header"),
        ([(123, "<b", 7)], r"states its voxel sizes in an unknown unit \(code 7\)"),
        ([(123, "<b", 1)], "measures 7.2e.04 x 8.8e.04 x 6e.04 mm by its header .*: nobody is that large"),
        ([(68, "<h", 1007)], r"x.nii is NIfTI, but no volume of grey values \(vector\): leave it out"),
        ([(68, "<h", 3006)], r"no volume of grey values \(ConnDenseScalar\)"),
    ],
)
def test_a_header_that_says_too_little_or_too_much_is_told(tmp_path, edit, sentence):
    with pytest.raises(InputError, match=sentence):
        open_nifti(edited(tmp_path / "x.nii", edit))


def test_a_size_of_zero_beside_an_affine_harms_nothing(tmp_path):
    volume = open_nifti(edited(tmp_path / "x.nii", [(80, "<f", 0.0)]))
    np.testing.assert_allclose(volume.affine, AFFINE)


def test_what_the_header_leaves_open_is_said(tmp_path, caplog):
    volume = open_nifti(edited(tmp_path / "x.nii", NO_FORM))
    np.testing.assert_allclose(np.abs(np.diag(volume.affine)[:3]), SPACING)
    assert "x.nii does not say how it is oriented: taken as stored from right to left" in caplog.text
    open_nifti(edited(tmp_path / "y.nii", [(80, "<f", 1.0)]))
    assert "y.nii states voxels of 1 x 2 x 2, but its affine has 2 x 2 x 2: the affine is used" in caplog.text


def test_cifti_is_no_volume(tmp_path):
    cifti = pytest.importorskip("nibabel.cifti2")
    grey = cifti.BrainModelAxis.from_mask(np.ones((4, 4, 4), bool), affine=np.eye(4), name="thalamus_left")
    rows = np.zeros((1, 64), np.float32)
    nib.save(cifti.Cifti2Image(rows, (cifti.ScalarAxis(["a"]), grey)), tmp_path / "x.dscalar.nii")
    with pytest.raises(InputError, match=r"x.dscalar.nii is NIfTI, but no volume of grey values \(Cifti2Image\)"):
        open_nifti(tmp_path / "x.dscalar.nii")


def test_suffixes_in_capitals_are_read_and_bounded_alike(tmp_path):
    path = save(tmp_path / "x.nii.gz", head(0))
    path.rename(tmp_path / "X.NII.GZ")
    np.testing.assert_array_equal(open_nifti(tmp_path / "X.NII.GZ").voxels(), head(0))


def test_a_mask_with_a_channel_per_class_is_told(tmp_path):
    one_hot = save(tmp_path / "m.nii.gz", np.zeros((*SHAPE, 2), np.uint8))
    with pytest.raises(InputError, match="36 x 44 x 30 x 2, such as one channel per class: write one volume of labels"):
        open_mask(one_hot)


def test_a_grid_may_differ_by_rounding_only():
    small = np.diag([0.01, 0.01, 0.01, 1]) @ AFFINE
    for affine, shift, same in (
        (AFFINE, 0.1, True),
        (AFFINE, 1.0, False),  # half a voxel: a corner taken for a centre
        (small, 0.001, True),
        (small, 0.01, False),  # half a voxel of 0.02 mm
    ):
        moved = affine.copy()
        moved[0, 3] += shift
        assert same_grid(VolumeGeometry(SHAPE, affine, 2), VolumeGeometry(SHAPE, moved, 2)) == same
    stored, affine = reoriented(head(0), AFFINE, FLIPPED)
    assert same_grid(VolumeGeometry(SHAPE, AFFINE, 2), VolumeGeometry(stored.shape, affine, 2))


def about_x(degrees):
    """The affine of the phantom, turned about the axis from left to right."""
    angle = np.radians(degrees)
    turned = np.eye(4)
    turned[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turned @ AFFINE


def test_near_45_degrees_one_direction_is_chosen_for_all():
    affines = [about_x(degrees) for degrees in (43.0, 44.5, 45.5, 47.0)]
    alone = {VolumeGeometry(SHAPE, affine, 2).stack_shape for affine in affines}
    assert len(alone) == 2  # the direction jumps
    frame = common_frame(affines)
    placed = [VolumeGeometry(SHAPE, affine, 2, frame=frame) for affine in affines]
    assert len({geometry.stack_shape for geometry in placed}) == 1
    assert max(geometry.tilt for geometry in placed) < 5
    stored, affine = reoriented(head(1), affines[3], FLIPPED)
    np.testing.assert_array_equal(
        VolumeGeometry(stored.shape, affine, 2, frame=frame).to_stack(stored), placed[3].to_stack(head(1))
    )


def test_clear_axes_are_those_of_the_body():
    assert common_frame([AFFINE, oblique(AFFINE), about_x(-30)]) is None
    assert common_frame([AFFINE, AFFINE, about_x(44)]) is None  # one of many
    assert common_frame([]) is None


def test_letters_are_those_of_the_sides():
    assert VolumeGeometry(SHAPE, AFFINE, 2).letters == ("L", "R", "A", "P")
    assert VolumeGeometry(SHAPE, AFFINE, 1).letters == ("L", "R", "S", "I")
    assert VolumeGeometry(SHAPE, AFFINE, 0).letters == ("P", "A", "S", "I")
    stored, affine = reoriented(head(1), AFFINE, FLIPPED)
    assert VolumeGeometry(stored.shape, affine, 2).letters == ("L", "R", "A", "P")


@pytest.fixture
def root(tmp_path):
    """A data set of volumes of 2 mm, of which one training volume is replaced by the tests."""
    for split, seeds in (("train", (0, 1)), ("valid", (2,)), ("test", (3,))):
        for seed in seeds:
            save(tmp_path / f"data/{split}/p{seed}_t1.nii.gz", head(seed))
    save(tmp_path / "data/test/p3_seg.nii.gz", (head(3) > 440).astype(np.uint8))
    return tmp_path / "data"


def prepare(root, **options):
    entry = {"source": "nifti", "root": str(root), "min_foreground": 0.01, **options}
    return read_manifest(prepare_dataset("x", entry, root.parent / "out"))


def fine(seed):
    """A volume of the phantom with voxels of 1 mm."""
    affine = AFFINE.copy()
    affine[:3, :3] /= 2
    return np.kron(head(seed), np.ones((2, 2, 2), np.int16)), affine


def test_volumes_of_several_spacings_are_refused_or_resampled(root):
    save(root / "train/p1_t1.nii.gz", *fine(1))
    with pytest.raises(InputError, match=r"the spacing of pixels differs: 1 mm in .*p1_t1.nii.gz, 2 mm in .*spacing"):
        prepare(root)
    frame = prepare(root, spacing=2)
    sizes = {
        subject: max(int((np.asarray(Image.open(path)) > 0).sum()) for path in rows["image"])
        for subject, rows in frame[frame["split"] == "train"].groupby("subject")
    }
    assert sizes["p1"] == pytest.approx(sizes["p0"], rel=0.15)
    assert set(zip(frame["height"], frame["width"], strict=True)) == {(44, 44)}
    coarse = prepare(root, spacing=4)
    assert set(coarse["height"]) == {22}
    test = coarse[coarse["split"] == "test"]
    assert (test["label"] == "anomalous").any()
    assert set(np.unique([np.asarray(Image.open(path)) for path in test["mask"]])) == {0, 255}


def test_a_data_set_of_oblique_volumes_is_cut_along_one_direction(root, caplog):
    for number, degrees in enumerate((43.0, 47.0)):
        save(root / f"train/p{number}_t1.nii.gz", head(number), about_x(degrees))
    save(root / "valid/p2_t1.nii.gz", head(2), about_x(44.5))
    for kind, voxels in (("t1", head(3)), ("seg", (head(3) > 440).astype(np.uint8))):
        save(root / f"test/p3_{kind}.nii.gz", voxels, about_x(45.5))
    caplog.set_level("INFO")
    frame = prepare(root)
    assert "The volumes are oblique, and all are sliced along the direction (" in caplog.text
    assert len(set(frame["height"])) == 1
    shown = frame.groupby("subject").size()
    assert shown.max() - shown.min() <= 1


@pytest.mark.parametrize(
    ("name", "voxels", "affine", "sentence"),
    [
        ("test/p3_seg.nii.gz", np.zeros((*SHAPE, 2), np.uint8), AFFINE, "such as one channel per class"),
        ("test/p3_seg.nii.gz", np.full(SHAPE, 0.3, np.float32), AFFINE, "holds probabilities from 0 to 1: write it as"),
        ("train/p1_t1.nii", head(1), AFFINE, "p1_t1.nii and p1_t1.nii.gz differ in their suffix only"),
        ("train/p1_t1.nii.gz", head(1), np.diag([1e3, 1e3, 1e3, 1]) @ AFFINE, "nobody is that large"),
    ],
)
def test_what_is_wrong_is_said(root, name, voxels, affine, sentence):
    save(root / name, voxels, affine)
    with pytest.raises(InputError, match=sentence):
        prepare(root)


def test_slices_have_a_largest_size(root):
    with pytest.raises(InputError, match="the slices would have 44000 x 44000 pixels; at most 8192 are allowed"):
        prepare(root, spacing=0.002)
