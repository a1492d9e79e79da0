"""DICOM series written here: order, rescaling, inversion, and what is refused."""

import builtins

import numpy as np
import pytest
from PIL import Image

from dinodp.datasets.dicom import read_series
from dinodp.datasets.manifest import read_manifest
from dinodp.datasets.sources import prepare_dataset
from dinodp.errors import InputError

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")


def write(folder, pixels, position, *, series="1.2.3", photometric="MONOCHROME2", slope=1.0, intercept=0.0):
    """One slice at ``position`` mm; the file's name says nothing of the order."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / f"{(position * 7919) % 101:03.0f}.dcm"
    item = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    item.SOPClassUID, item.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    item.SeriesInstanceUID, item.PhotometricInterpretation, item.SamplesPerPixel = series, photometric, 1
    item.Rows, item.Columns = pixels.shape
    item.BitsAllocated = item.BitsStored = 16
    item.HighBit, item.PixelRepresentation = 15, 0
    item.ImageOrientationPatient, item.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, position]
    item.RescaleSlope, item.RescaleIntercept = slope, intercept
    item.PixelData = pixels.astype(np.uint16).tobytes()
    item.save_as(path, enforce_file_format=True)
    return path


def series(folder, seed, n=6, **options):
    generator = np.random.default_rng(seed)
    pixels = [np.pad(generator.integers(100, 1000, (10, 8)), 2) for _ in range(n)]
    for index, slice_pixels in enumerate(pixels):
        write(folder, slice_pixels, float(index), **options)
    return np.stack(pixels, axis=2)


@pytest.fixture
def root(tmp_path):
    for index, name in enumerate(("train/a", "train/b", "valid/c", "test/normal/d", "test/anomalous/e")):
        series(tmp_path / "dicom" / name, index)
    return tmp_path / "dicom"


def prepare(root, out, **options):
    return read_manifest(prepare_dataset("x", {"source": "dicom", "root": str(root), **options}, out))


def test_series_become_slices(root, tmp_path):
    frame = prepare(root, tmp_path / "out", slice_step=2)
    assert frame.groupby(["split", "label"]).size().to_dict() == {
        ("train", "normal"): 6,
        ("valid", "normal"): 3,
        ("test", "normal"): 3,
        ("test", "anomalous"): 3,
    }
    assert np.asarray(Image.open(frame["image"].iloc[0])).shape == (14, 14)
    assert (frame["mask"] == "").all()


def test_order_and_rescaling(tmp_path):
    pixels = series(tmp_path / "s", 0, slope=2.0, intercept=-1024.0)
    np.testing.assert_allclose(read_series(tmp_path / "s"), pixels * 2.0 - 1024.0)


def test_what_is_no_slice_is_not_read(tmp_path):
    pixels = series(tmp_path / "s", 0)
    for name in ("README", "notes.txt"):
        (tmp_path / "s" / name).write_text("hello")
    (tmp_path / "s/DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 20)
    np.testing.assert_allclose(read_series(tmp_path / "s"), pixels)


def test_monochrome1_is_inverted(tmp_path):
    pixels = series(tmp_path / "s", 0, photometric="MONOCHROME1")
    np.testing.assert_allclose(read_series(tmp_path / "s"), -pixels)


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda r: write(r / "train/a", np.ones((14, 12)), 9.0, series="9.9"), "holds files of several series"),
        (lambda r: write(r / "train/a", np.ones((5, 5)), 9.0), "the slices of .*train/a differ in size"),
        (lambda r: (r / "train/a/x.dcm").write_text("hello"), "x.dcm is not a readable DICOM image"),
        (lambda r: [path.unlink() for path in (r / "valid/c").iterdir()], "the series .*valid/c is empty"),
        (lambda r: (r / "valid").rename(r / "val"), r"there is no folder .*valid/\*; the layout is a folder of .dcm"),
        (lambda r: [write(r / "valid/c", np.ones((14, 12)), float(i)) for i in range(6)], "has no foreground"),
    ],
)
def test_what_is_wrong_is_said(root, tmp_path, break_it, sentence):
    break_it(root)
    with pytest.raises(InputError, match=sentence):
        prepare(root, tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_without_pydicom_it_is_said(root, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("pydicom"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match="needs pydicom, which is not installed: pip install pydicom"):
        prepare(root, tmp_path / "out")


def test_what_is_outside_of_the_series_is_named(tmp_path, caplog):
    root = tmp_path / "raw"
    for seed, place in enumerate(("train/a", "valid/b", "test/normal/c", "test/anomalous/d")):
        series(root / place, seed)
    write(root / "train", np.ones((14, 12)), 0.0)
    write(root / "train/a/deeper", np.ones((14, 12)), 0.0)
    for hidden in ("train/.trash", "test/normal/__MACOSX"):
        (root / hidden).mkdir()
    (root / "test/other").mkdir()
    entry = {"source": "dicom", "root": str(root), "min_foreground": 0.0}
    frame = read_manifest(prepare_dataset("x", entry, tmp_path / "out"))
    assert set(frame["subject"]) == {"a", "b", "c", "d"}
    assert "2 files outside of the folders of series (such as train/" in caplog.text
    assert "left out are 1 folder (such as other); read are anomalous, normal." in caplog.text
