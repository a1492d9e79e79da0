"""Own scans whose headers say something unusual: units, oblique axes, scans in memory."""

import json
import sys
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scan_phantoms import AFFINE, FAST, FAST_FIT, SHAPE, WINDOW, head, healthy_folder, lesion_mask, save, write_series

from dinodp.cli import main
from dinodp.errors import InputError
from dinodp.scans import AnomalyDetector
from dinodp.scans.reading.folder import ReadingOptions, find_scans, read_scan
from dinodp.scans.reading.memory import read_memory

MICRONS = np.diag([1000.0, 1000, 1000, 1]) @ AFFINE


def about_x(degrees):
    """The affine of the phantom, turned about the axis from left to right."""
    angle = np.radians(degrees)
    turned = np.eye(4)
    turned[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turned @ AFFINE


def in_microns(path, seed):
    image = nib.Nifti1Image(head(seed, lesion=seed > 6), MICRONS)
    image.header.set_xyzt_units("micron")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def fit(folder, model, *options):
    return main(["fit", str(folder), "--out", str(model), *FAST_FIT, *WINDOW, *options])


def predict(new, model, out, *options):
    return main(["predict", str(new), "--model", str(model), "--out", str(out), *options])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Fitted on four scans in mm and one in micrometres."""
    folder = tmp_path_factory.mktemp("units")
    healthy_folder(folder / "healthy", 4)
    in_microns(folder / "healthy/h4.nii.gz", 4)
    assert fit(folder / "healthy", folder / "m.h5") == 0
    return folder / "m.h5"


def test_scans_in_other_units_are_the_same_scans(model, tmp_path):
    in_microns(tmp_path / "new/microns.nii.gz", 7)
    save(tmp_path / "new/mm.nii.gz", head(7, lesion=True))
    save(tmp_path / "masks/microns.nii.gz", lesion_mask().astype(np.uint8))  # in mm
    save(tmp_path / "masks/mm.nii.gz", lesion_mask().astype(np.uint8))
    assert predict(tmp_path / "new", model, tmp_path / "out") == 0
    table = pd.read_csv(tmp_path / "out/scans.csv").set_index("scan")
    for column in ("score", "ml_above", "highest_slice"):
        assert table.loc["microns", column] == pytest.approx(table.loc["mm", column], rel=1e-6)
    found = nib.load(tmp_path / "out/maps/microns.nii.gz")
    np.testing.assert_allclose(found.affine, MICRONS, rtol=1e-6)
    assert found.header.get_xyzt_units()[0] == "micron"
    regions = pd.read_csv(tmp_path / "out/regions.csv")
    pair = [regions[regions["scan"] == name][["x_mm", "y_mm", "z_mm"]].to_numpy() for name in ("microns", "mm")]
    np.testing.assert_allclose(*pair, atol=0.02)
    assert main(["evaluate", str(tmp_path / "out"), "--masks", str(tmp_path / "masks"), "--resamples", "3"]) == 0


def test_oblique_scans_share_one_direction_from_fit_to_evaluation(tmp_path, capsys):
    for seed, degrees in enumerate((43.0, 44.5, 45.5, 47.0)):
        save(tmp_path / f"healthy/h{seed}.nii.gz", head(seed), about_x(degrees))
    assert fit(tmp_path / "healthy", tmp_path / "m.h5") == 0
    assert "The volumes are oblique, and all are sliced along the direction (" in capsys.readouterr().err
    assert "(0.00, " in (tmp_path / "m.card.md").read_text()
    for name, degrees in (("a", 44.0), ("b", 46.0)):
        save(tmp_path / f"new/{name}.nii.gz", head(7, lesion=True), about_x(degrees))
        save(tmp_path / f"masks/{name}.nii.gz", lesion_mask().astype(np.uint8), about_x(degrees))
    assert predict(tmp_path / "new", tmp_path / "m.h5", tmp_path / "out") == 0
    one, other = (nib.load(tmp_path / f"out/maps/{name}.nii.gz") for name in "ab")
    np.testing.assert_allclose(one.get_fdata(), other.get_fdata(), atol=1e-4)  # as if one were not turned at all
    assert json.loads((tmp_path / "out/predictions.json").read_text())["frame"] is not None
    assert main(["evaluate", str(tmp_path / "out"), "--masks", str(tmp_path / "masks"), "--resamples", "3"]) == 0
    assert "2 scans of 2 subjects" in capsys.readouterr().out


def test_one_turned_scan_among_the_healthy_is_named(tmp_path, capsys):
    healthy_folder(tmp_path / "healthy", 3)
    save(tmp_path / "healthy/turned.nii.gz", head(5), about_x(38))
    assert fit(tmp_path / "healthy", tmp_path / "m.h5") == 0
    assert "turned is turned by 38 degrees against the direction of the slices" in capsys.readouterr().err


def test_a_huge_slice_is_refused_before_memory_is_taken(tmp_path):
    """Fitted on pixels of 0.02 mm; a scan of 0.1 mm would be resampled to as many as 11,000."""
    fine = np.diag([0.01, 0.01, 0.01, 1]) @ AFFINE
    for seed in range(3):
        save(tmp_path / f"h/{seed}.nii", head(seed), fine)
    assert fit(tmp_path / "h", tmp_path / "m.h5") == 0
    long = np.zeros((2200, 20, 3), np.int16)
    long[10:30, 5:15] = head(7)[8:28, 17:27, 14:17]
    save(tmp_path / "new/x.nii", long, np.diag([0.1, 0.1, 0.1, 1]))
    assert predict(tmp_path / "new", tmp_path / "m.h5", tmp_path / "out", "--force") == 1
    message = pd.read_csv(tmp_path / "out/scans.csv")["message"][0]
    assert "its slices would measure 11000 pixels at the scale of the model, of which at most 8192" in message


def test_a_structure_set_in_a_folder_of_its_own_is_no_scan(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    series = write_series(tmp_path / "patient/ct", head(0)[:, :, :3], AFFINE)
    item = pydicom.dcmread(series / "000.dcm")
    del item.Rows, item.Columns, item.PixelData
    item.SOPClassUID, item.Modality = pydicom.uid.RTStructureSetStorage, "RTSTRUCT"
    (tmp_path / "patient/rtstruct").mkdir()
    item.save_as(tmp_path / "patient/rtstruct/rs.dcm")
    assert find_scans(tmp_path / "patient") == [("ct", series)]


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return AnomalyDetector(**FAST).fit(healthy_folder(tmp_path_factory.mktemp("memory"), 3))


class Image:
    """What SimpleITK's images have, of which the reader asks nothing else."""

    def __init__(self, voxels, affine):
        lps = np.diag([-1.0, -1, 1, 1]) @ affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        self.array, self.spacing = voxels.transpose(), spacing
        self.direction, self.origin = (lps[:3, :3] / spacing).ravel(), lps[:3, 3]

    def GetSpacing(self):
        return tuple(self.spacing)

    def GetOrigin(self):
        return tuple(self.origin)

    def GetDirection(self):
        return tuple(self.direction)


def kinds(voxels, affine):
    """The same volume in every form that is taken."""
    yield nib.Nifti1Image(voxels, affine)
    yield nib.Nifti2Image(voxels.astype(np.float32), affine)
    yield nib.Nifti1Image(voxels[..., None], affine)
    yield nib.MGHImage(voxels.astype(np.float32), affine)
    for kind in (np.int16, np.uint16, np.int64, np.float32, np.float64):
        yield voxels.astype(kind), affine
    yield voxels.tolist(), affine.tolist()
    yield Image(voxels, affine)


def test_volumes_in_memory_score_as_files_do(detector, tmp_path, monkeypatch):
    monkeypatch.setitem(
        sys.modules, Image.__module__.partition(".")[0], SimpleNamespace(GetArrayFromImage=lambda item: item.array)
    )
    voxels, affine = head(7, lesion=True), about_x(12)
    path = save(tmp_path / "x.nii.gz", voxels, affine)
    expected, wanted = detector.score_samples([path]), detector.anomaly_map(path)
    for scan in kinds(voxels, affine):
        np.testing.assert_allclose(detector.score_samples([scan]), expected, rtol=1e-4)
        np.testing.assert_allclose(detector.anomaly_map(scan).reshape(SHAPE), wanted, atol=1e-3)
    one = nib.load(path)
    assert detector.predict(one).shape == (1,)  # one image is a list of one


def test_a_fit_on_volumes_in_memory_is_that_on_files(detector):
    images = [(head(seed), AFFINE) for seed in range(3)]
    fitted = AnomalyDetector(**FAST).fit(images)
    np.testing.assert_allclose(fitted.score_samples([images[1]]), detector.score_samples([images[1]]), rtol=0.2)
    assert fitted.score_scan(images[0]).anomaly_map.shape == (SHAPE[2], SHAPE[1], SHAPE[0])


@pytest.mark.parametrize(
    ("scan", "sentence"),
    [
        (3.5, "x is a float; scans are paths, or images uint8"),
        ((np.full(SHAPE, "a"), AFFINE), "x holds voxels of the type <U1; only grey ones are read"),
        ((head(0).astype(complex), AFFINE), "x holds voxels of the type complex128"),
        ((head(0), AFFINE * 0), "x has an affine that cannot be inverted"),
        ((head(0), MICRONS), "x measures 7.2e.04 x .* nobody is that large"),
        ((np.stack([head(0)] * 2, axis=3), AFFINE), "x holds 2 volumes"),
        ((np.where(head(0) > 400, np.nan, head(0)), AFFINE), "x holds .* voxels that are not finite"),
        (head(0), "An array of shape .* give a volume as .voxels, affine., or as an image of nibabel or SimpleITK"),
    ],
)
def test_what_is_no_scan_in_memory_is_told(scan, sentence):
    with pytest.raises(InputError, match=sentence):
        read_memory("x", scan, ReadingOptions())


def test_four_dimensions_in_memory_take_an_index():
    both = nib.Nifti1Image(np.stack([head(0), head(1)], axis=3), AFFINE)
    scan = read_memory("x", both, ReadingOptions(index=1))
    np.testing.assert_array_equal(scan.geometry.from_stack(scan.values), head(1))


def test_a_path_may_begin_with_the_home_folder(detector, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = save(tmp_path / "x.nii.gz", head(7))
    np.testing.assert_array_equal(detector.score_samples(["~/x.nii.gz"]), detector.score_samples([path]))
    assert read_scan("x", path, ReadingOptions()).kind == "volume"
