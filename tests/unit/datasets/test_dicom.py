"""DICOM series written here: order, rescaling, inversion, and what is refused."""

import builtins

import numpy as np
import pytest
from PIL import Image

from dinodp.datasets.dicom import is_slice, pixel_spacing, read_series, series_axes
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


def edited(folder, edit, n=5):
    """A series of which every file was changed by ``edit(item, number)``."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    pixels = []
    for number in range(n):
        path = write(folder, generator.integers(100, 1000, (14, 12)), float(number))
        item = pydicom.dcmread(path)
        edit(item, number)
        item.save_as(path)
        pixels.append(item.pixel_array)
    return np.stack(pixels, axis=2)


def emptied(*names):
    def edit(item, _):
        for name in names:
            item.add_new(name, "US" if name == "PixelPaddingValue" else pydicom.datadict.dictionary_VR(name), None)

    return edit


@pytest.mark.parametrize(
    "names",
    [
        ["RescaleSlope", "RescaleIntercept"],
        ["RescaleIntercept"],
        ["PixelPaddingValue"],
        ["NumberOfFrames"],
        ["ModalityLUTSequence"],
        ["SliceThickness", "SeriesInstanceUID"],
        ["InstanceNumber"],
    ],
)
def test_an_empty_tag_is_as_an_absent_one(tmp_path, names):
    pixels = edited(tmp_path / "s", emptied(*names))
    np.testing.assert_array_equal(read_series(tmp_path / "s"), pixels)


def test_without_places_the_order_is_by_number_else_by_name(tmp_path, caplog):
    def unplaced(item, number):
        del item.ImagePositionPatient
        item.InstanceNumber = 5 - number

    caplog.set_level("INFO")
    pixels = edited(tmp_path / "s", unplaced)
    np.testing.assert_array_equal(read_series(tmp_path / "s"), pixels[:, :, ::-1])
    assert "they are in the order of the instance number" in caplog.text
    for path in sorted((tmp_path / "s").iterdir()):
        item = pydicom.dcmread(path)
        number = 5 - int(item.InstanceNumber)
        item.InstanceNumber = None
        item.save_as(tmp_path / f"s/slice_{number + 8}.dcm")  # 8, 9, 10, ...
        path.unlink()
    np.testing.assert_array_equal(read_series(tmp_path / "s"), pixels)
    assert "they are in the order of the file name" in caplog.text


def test_each_slice_is_rescaled_by_itself(tmp_path):
    def rescaled(item, number):
        item.RescaleSlope, item.RescaleIntercept = number + 1, -number

    pixels = edited(tmp_path / "s", rescaled)
    np.testing.assert_allclose(read_series(tmp_path / "s"), pixels * (1.0 + np.arange(5)) - np.arange(5))


def test_values_go_through_the_modality_table(tmp_path):
    table = (np.arange(1024) ** 2 // 16).astype("<u2")

    def looked_up(item, _):
        entry = pydicom.Dataset()
        entry.LUTDescriptor, entry.LUTData, entry.ModalityLUTType = [1024, 0, 16], table.tobytes(), "US"
        item.ModalityLUTSequence = [entry]

    pixels = edited(tmp_path / "s", looked_up)
    np.testing.assert_array_equal(read_series(tmp_path / "s"), table[pixels])


def test_a_table_of_the_display_is_named_and_not_applied(tmp_path, caplog):
    def shown(item, _):
        entry = pydicom.Dataset()
        entry.LUTDescriptor, entry.LUTData = [4, 0, 16], np.arange(4, dtype="<u2").tobytes()
        item.VOILUTSequence, item.WindowCenter, item.WindowWidth = [entry], 40, 80

    caplog.set_level("INFO")
    pixels = edited(tmp_path / "s", shown)
    np.testing.assert_array_equal(read_series(tmp_path / "s"), pixels)
    assert "its VOI look-up table is for the display, and not applied" in caplog.text


@pytest.mark.parametrize(("signed", "value"), [(0, 4095), (1, -2000), (1, 63536)])
def test_padding_is_the_lowest_value(tmp_path, signed, value):
    """Also where the element of a signed series holds the number unsigned, as 63536 for -2000."""
    stored = -2000 if value == 63536 else value

    def padded(item, _):
        pixels = item.pixel_array.astype(np.int16 if signed else np.uint16)
        pixels[:, :3] = stored
        item.PixelRepresentation, item.PixelData = signed, pixels.tobytes()
        item.add_new(0x00280120, "US" if value > 32767 else "SS" if signed else "US", value)

    edited(tmp_path / "s", padded)
    found = read_series(tmp_path / "s")
    assert (found[:, :3] == found.min()).all()
    assert found.max() < 1000
    assert found[:, 3:].min() >= 100


def test_a_range_of_padding(tmp_path):
    def padded(item, _):
        item.add_new(0x00280120, "US", 900)
        item.add_new(0x00280121, "US", 65535)

    pixels = edited(tmp_path / "s", padded)
    np.testing.assert_array_equal(read_series(tmp_path / "s"), np.where(pixels >= 900, pixels.min(), pixels))


def no_image(path, kind, modality, **tags):
    """A DICOM file of another kind."""
    item = pydicom.Dataset()
    item.file_meta = pydicom.dataset.FileMetaDataset()
    item.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    item.SOPClassUID, item.SOPInstanceUID, item.Modality, item.SeriesInstanceUID = kind, "1.9", modality, "9.9"
    item.file_meta.MediaStorageSOPClassUID, item.file_meta.MediaStorageSOPInstanceUID = kind, "1.9"
    for name, value in tags.items():
        setattr(item, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    item.save_as(path, enforce_file_format=True)


OTHERS = [
    (pydicom.uid.RTStructureSetStorage, "RTSTRUCT", {}),
    (pydicom.uid.BasicTextSRStorage, "SR", {}),
    (pydicom.uid.GrayscaleSoftcopyPresentationStateStorage, "PR", {}),
    (pydicom.uid.EncapsulatedPDFStorage, "DOC", {}),
    (pydicom.uid.SegmentationStorage, "SEG", {"Rows": 14, "Columns": 12, "NumberOfFrames": 5}),
    (pydicom.uid.RTDoseStorage, "RTDOSE", {"Rows": 14, "Columns": 12, "NumberOfFrames": 5}),
]


@pytest.mark.parametrize(("kind", "modality", "tags"), OTHERS)
def test_what_is_no_image_is_passed_over_and_named(tmp_path, caplog, kind, modality, tags):
    caplog.set_level("INFO")
    pixels = series(tmp_path / "s", 0)
    no_image(tmp_path / "s/0other.dcm", kind, modality, **tags)
    np.testing.assert_allclose(read_series(tmp_path / "s"), pixels)
    assert "no DICOM images, and not read: 0other.dcm (" in caplog.text
    no_image(tmp_path / "alone/other.dcm", kind, modality, **tags)
    assert not is_slice(tmp_path / "alone/other.dcm")
    with pytest.raises(InputError, match=r"alone is empty: it holds no image, but other\.dcm"):
        read_series(tmp_path / "alone")


def second(names):
    def edit(item, number):
        for name, values in names.items():
            setattr(item, name, values[number % 2])

    return edit


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (second({"ImageOrientationPatient": ([1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1])}), "have several orientations"),
        (second({"PixelSpacing": ([1, 1], [2, 2])}), "have several pixel sizes"),
        (second({"PhotometricInterpretation": ("MONOCHROME1", "MONOCHROME2")}), "of MONOCHROME1 and of MONOCHROME2"),
        (second({"SOPInstanceUID": ("1.5", "1.5")}), "are one image .SOPInstanceUID.: leave one out"),
        (second({"NumberOfFrames": (3, 3)}), r"holds 3 frames in one file \(multi-frame DICOM\): convert it to NIfTI"),
        (second({"Rows": (None, None)}), r"is not a readable DICOM image \(it lacks Rows\)"),
        (second({"Rows": (60000, 60000), "Columns": (60000, 60000)}), "announces 18000000000 voxels; at most"),
        (second({"PhotometricInterpretation": ("RGB", "RGB"), "SamplesPerPixel": (3, 3)}), "is RGB; only single grey"),
        (
            second({"ImagePositionPatient": ([0, 0, 0], [0, 0, 1]), "AcquisitionNumber": (1, 1), "EchoTime": (9, 9)}),
            "holds up to 3 slices at one place, which differ in their pixels",
        ),
        (
            lambda item, n: (
                setattr(item, "ImagePositionPatient", [0, 0, n // 2]),
                setattr(item, "AcquisitionNumber", n % 2 + 1),
            ),
            "holds up to 2 slices at one place, which differ in AcquisitionNumber: several acquisitions in one series",
        ),
    ],
)
def test_a_series_that_is_not_one_volume_is_told(tmp_path, edit, sentence):
    announced(tmp_path / "s", edit)
    with pytest.raises(InputError, match=sentence):
        read_series(tmp_path / "s")


def announced(folder, edit):
    """As `edited`, of headers to which the pixels do not fit."""
    for number in range(5):
        path = write(folder, np.ones((14, 12)), float(number))
        item = pydicom.dcmread(path)
        edit(item, number)
        item.save_as(path)


def test_the_axes_are_known_from_a_header(tmp_path):
    series(tmp_path / "s", 0)
    np.testing.assert_array_equal(series_axes(tmp_path / "s"), np.diag([-1, -1, 1, 1]))
    (tmp_path / "empty").mkdir()
    assert series_axes(tmp_path / "empty") is None


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


def test_series_of_several_pixel_sizes_are_refused_or_resampled(root, tmp_path):
    for name, size in (("train/a", 1.0), ("train/b", 2.0), ("valid/c", 2.0), ("test/normal/d", 2.0)):
        for path in (root / name).iterdir():
            item = pydicom.dcmread(path)
            item.PixelSpacing = [size, size]
            item.save_as(path)
    with pytest.raises(InputError, match=r"the spacing of pixels differs: 1 mm in .*train/a, 2 mm in .*train/b"):
        prepare(root, tmp_path / "out")
    with pytest.raises(InputError, match=r"anomalous/e lacks PixelSpacing: it cannot be resampled"):
        prepare(root, tmp_path / "out", spacing=2)
    for path in (root / "test/anomalous/e").iterdir():
        item = pydicom.dcmread(path)
        item.PixelSpacing = [2, 2]
        item.save_as(path)
    frame = prepare(root, tmp_path / "out", spacing=2)
    sizes = frame.groupby("subject")["height"].unique()
    assert (sizes["a"].tolist(), sizes["b"].tolist()) == ([7], [14])
    item.PixelSpacing = [0, 2]
    item.save_as(path.with_name("000.dcm"))
    with pytest.raises(InputError, match="has the PixelSpacing 0 x 2 mm, which is none"):
        pixel_spacing(path.parent)
