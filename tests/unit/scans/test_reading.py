import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scan_phantoms import (
    AFFINE,
    ORIENTATIONS,
    SHAPE,
    head,
    oblique,
    photo,
    reoriented,
    save,
    save_photo,
    write_series,
)

from dinodp.errors import InputError
from dinodp.scans.reading.folder import ReadingOptions, find_all, find_scans, read_scan
from dinodp.scans.reading.scan import find_foreground

pytest.importorskip("pydicom")
PLAIN = ReadingOptions()


def test_finds_files_and_series_by_path(tmp_path):
    save(tmp_path / "b/x.nii.gz", head(0))
    save(tmp_path / "b/y.nii", head(0))
    save_photo(tmp_path / "b/x.png", photo(0))
    save_photo(tmp_path / "a.TIF", photo(0))
    write_series(tmp_path / "c/series", head(0)[:, :, :3], AFFINE)
    (tmp_path / ".hidden.png").write_text("")
    (tmp_path / "notes.txt").write_text("")
    names = [name for name, _ in find_scans(tmp_path)]
    assert names == ["a", "b__x_nii_gz", "b__x_png", "b__y", "c__series"]
    assert [name for name, _ in find_scans(tmp_path, "*.nii*")] == ["b__x", "b__y"]
    assert [name for name, _ in find_scans(tmp_path, "series")] == ["c__series"]
    assert find_scans(tmp_path / "b/x.nii.gz") == [("x", tmp_path / "b/x.nii.gz")]
    assert [name for name, _ in find_scans(tmp_path / "c/series")] == ["series"]


def test_a_series_without_suffixes_is_found(tmp_path):
    series = write_series(tmp_path / "s", head(0)[:, :, :3], AFFINE)
    for file in sorted(series.iterdir()):
        file.rename(file.with_suffix(""))
    assert find_scans(tmp_path) == [("s", series)]
    assert read_scan("s", series, PLAIN).values.shape == (3, SHAPE[1], SHAPE[0])


def test_two_paths_must_not_give_one_name(tmp_path):
    for folder in ("a", "b"):
        save(tmp_path / folder / "x.nii", head(0))
    with pytest.raises(InputError, match=r"a/x.nii and .*b/x.nii would both be named x: give a folder that holds both"):
        find_all([tmp_path / "a", tmp_path / "b"])
    assert len(find_all([tmp_path])) == 2


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.float32])
def test_voxels_of_every_type(tmp_path, kind):
    voxels = (head(0) / 4).astype(kind)
    if kind == np.uint16:
        voxels = head(0).astype(np.uint16) * 60  # above the range of int16
    scan = read_scan("x", save(tmp_path / "x.nii.gz", voxels), PLAIN)
    assert (scan.kind, scan.depth, scan.channels) == ("volume", 0, 1)
    np.testing.assert_array_equal(scan.geometry.from_stack(scan.values), voxels)


def test_scaled_voxels_are_read_with_slope_and_intercept(tmp_path):
    image = nib.Nifti1Image(head(0), AFFINE)
    image.header.set_slope_inter(0.5, -100)
    nib.save(image, tmp_path / "x.nii")
    scan = read_scan("x", tmp_path / "x.nii", ReadingOptions(background=-100))
    expected = np.asanyarray(nib.load(tmp_path / "x.nii").dataobj)
    np.testing.assert_allclose(scan.geometry.from_stack(scan.values), expected)


def test_same_scan_for_every_orientation(tmp_path):
    affine = oblique(AFFINE @ np.diag([1, 1.2, 2.5, 1]))
    first = read_scan("x", save(tmp_path / "x.nii", head(1), affine), PLAIN)
    for number, orientation in enumerate(ORIENTATIONS[::7]):
        path = save(tmp_path / f"{number}.nii", *reoriented(head(1), affine, orientation))
        scan = read_scan("x", path, PLAIN)
        np.testing.assert_array_equal(scan.values, first.values)
        np.testing.assert_array_equal(scan.foreground, first.foreground)
        np.testing.assert_allclose(scan.spacing, first.spacing, rtol=1e-5)


def test_one_volume_of_four_dimensions(tmp_path):
    stack = np.stack([head(0), head(1)], axis=3)
    path = save(tmp_path / "x.nii.gz", stack)
    scan = read_scan("x", path, ReadingOptions(index=1))
    np.testing.assert_array_equal(scan.geometry.from_stack(scan.values), head(1))
    assert scan.geometry.shape == SHAPE
    one = save(tmp_path / "one.nii.gz", stack[..., :1])  # trailing dimensions of one are no dimensions
    np.testing.assert_array_equal(read_scan("x", one, PLAIN).geometry.from_stack(scan.values), head(1))


def test_a_series_lies_where_the_same_nifti_lies(tmp_path):
    affine = oblique(AFFINE @ np.diag([1, 1, 2.5, 1]))
    order = np.random.default_rng(0).permutation(SHAPE[2])
    series = read_scan("s", write_series(tmp_path / "s", head(2), affine, order=order), PLAIN)
    nifti = read_scan("n", save(tmp_path / "n.nii", head(2), affine), PLAIN)
    np.testing.assert_array_equal(series.values, nifti.values)
    np.testing.assert_allclose(series.spacing, nifti.spacing, rtol=1e-4)
    np.testing.assert_allclose(series.geometry.canonical_affine, affine, atol=1e-2)


def test_images_keep_their_depth_and_colour(tmp_path):
    grey, deep = photo(0), photo(0, bits=16)
    colour = np.stack([grey, grey, 255 - grey], axis=2)
    scans = {
        name: read_scan(name, save_photo(tmp_path / name, pixels), PLAIN)
        for name, pixels in {"g.png": grey, "d.png": deep, "d.tif": deep, "c.png": colour}.items()
    }
    assert [(scan.depth, scan.channels) for scan in scans.values()] == [(8, 1), (16, 1), (16, 1), (8, 3)]
    np.testing.assert_array_equal(scans["g.png"].values[0], grey)
    for name in ("d.png", "d.tif"):
        np.testing.assert_array_equal(scans[name].values[0], deep)
    np.testing.assert_array_equal(scans["c.png"].values[0], colour)
    assert all(scan.foreground.all() and scan.spacing is None for scan in scans.values())
    jpeg = tmp_path / "x.jpeg"
    Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2)).save(jpeg)
    assert read_scan("x", jpeg, PLAIN).channels == 1  # equal channels are one


def test_foreground():
    voxels = head(0).astype(np.float32)
    hole = voxels.copy()
    hole[18, 22, 15] = 0  # inside the body
    np.testing.assert_array_equal(find_foreground(hole, "auto", "volume", "x"), voxels > 0)
    shifted = voxels - 1000
    np.testing.assert_array_equal(find_foreground(shifted, "auto", "volume", "x"), voxels > 0)
    noisy = voxels + np.random.default_rng(0).normal(0, 4, voxels.shape).astype(np.float32)
    found = find_foreground(noisy, "auto", "volume", "x")  # no common corner value: Otsu
    assert (found == (voxels > 0)).mean() > 0.99
    assert find_foreground(voxels, "none", "volume", "x").all()
    np.testing.assert_array_equal(find_foreground(voxels, 0.0, "volume", "x"), voxels > 0)
    with pytest.raises(InputError, match="x has no foreground: every voxel has the background's value"):
        find_foreground(np.zeros((4, 4, 4), np.float32), 0.0, "volume", "x")


def test_a_volume_of_one_slice_has_a_background(tmp_path):
    """As one of the slices of a volume has; an image of the same pixels has none."""
    section = head(0)[:, :, 15]
    section[18, 22] = 0  # a hole in the body
    scan = read_scan("x", save(tmp_path / "x.nii.gz", section), PLAIN)
    assert scan.kind == "volume"
    np.testing.assert_array_equal(scan.geometry.from_stack(scan.foreground), head(0)[:, :, 15] > 0)
    image = read_scan("y", save_photo(tmp_path / "y.png", section.astype(np.uint16)), PLAIN)
    assert image.foreground.all()


def test_what_is_no_slice_does_not_disturb_a_series(tmp_path):
    """A README and the table of contents of a CD lie beside the slices, or above them."""
    series = write_series(tmp_path / "cd/s", head(0)[:, :, :3], AFFINE)
    for folder in (tmp_path / "cd", series):
        (folder / "README").write_text("hello")
        (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 20)
    assert find_scans(tmp_path / "cd") == [("s", series)]
    assert read_scan("s", series, PLAIN).values.shape[0] == 3


def test_what_is_hidden_or_was_predicted_is_no_scan(tmp_path):
    for name in ("a.png", ".git/annex/a.png", "deep/.ipynb_checkpoints/a.png", "maps/maps/a.png", "deep/b.png"):
        save_photo(tmp_path / ".home/new" / name, photo(0))
    (tmp_path / ".home/new/maps/predictions.json").write_text("{}")
    assert [name for name, _ in find_scans(tmp_path / ".home/new")] == ["a", "deep__b"]
