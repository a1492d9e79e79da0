"""Results as DICOM: read back with pydicom and highdicom, and by the validators of dcmtk and dicom3tools."""

import builtins
import json
import re
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest
from scan_phantoms import AFFINE, FAST_FIT, WINDOW, head, oblique, save, write_series

from dinodp.cli import main

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
SECRET = {  # what a header may say of a person and is of no use here
    "PatientBirthDate": "19700102", "PatientSex": "F", "PatientAge": "050Y", "PatientWeight": "61",
    "PatientAddress": "Hidden Lane", "ReferringPhysicianName": "Referrer^Hidden", "InstitutionName": "Hidden Hospital",
    "OperatorsName": "Operator^Hidden", "PatientComments": "Hidden comment", "OtherPatientIDs": "HIDDEN77",
}  # fmt: skip
KEPT = {"PatientName": "Doe^Jane", "PatientID": "P42", "AccessionNumber": "A7"}
TAGS = {
    **SECRET, **KEPT, "StudyInstanceUID": "1.2.5", "FrameOfReferenceUID": "1.2.6", "Modality": "MR",
    "StudyDate": "20260102", "StudyTime": "101112", "StudyID": "S1", "SeriesNumber": 3, "SliceThickness": 2,
    "PositionReferenceIndicator": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of DICOM series, and the predictions of an upright and an oblique series with a lesion."""
    place = tmp_path_factory.mktemp("dicom")
    for seed in range(4):
        write_series(place / f"healthy/h{seed}", head(seed), AFFINE, **TAGS)
    model = str(place / "m.h5")
    assert main(["fit", str(place / "healthy"), "--out", model, *FAST_FIT, *WINDOW]) == 0
    for name, affine in (("upright", AFFINE), ("oblique", oblique(AFFINE))):
        write_series(place / f"new/{name}", head(7, lesion=True), affine, **TAGS)
    command = ["predict", str(place / "new"), "--model", model, "--out", str(place / "out"), "--dicom", "--masks"]
    assert main(command) == 0
    return place


def frame_places(item):
    """Where each frame of an object lies: the affine [4, 4] to mm in NIfTI's axes of its pixel (column, row)."""
    for number in range(int(item.NumberOfFrames)):
        frame, shared = item.PerFrameFunctionalGroupsSequence[number], item.SharedFunctionalGroupsSequence[0]
        groups = [frame, shared]
        measures, orientation, position = (
            next(getattr(group, name)[0] for group in groups if name in group)
            for name in ("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence")
        )
        across, down = np.reshape(np.array(orientation.ImageOrientationPatient, float), (2, 3))
        rows, columns = map(float, measures.PixelSpacing)
        affine = np.column_stack([across * columns, down * rows, np.array(position.ImagePositionPatient, float)])
        yield np.diag([-1, -1, 1]) @ affine


@pytest.mark.parametrize("name", ["upright", "oblique"])
@pytest.mark.parametrize(("kind", "maps"), [("map", "maps"), ("seg", "masks")])
def test_each_frame_lies_where_the_map_says(folder, name, kind, maps):
    """Pixels and places in mm are those of the NIfTI file; they do not depend on the order of the frames."""
    item = pydicom.dcmread(folder / f"out/dicom/{name}_{kind}.dcm")
    image = nib.load(folder / f"out/{maps}/{name}.nii.gz")
    values, to_voxel = np.asarray(image.dataobj), np.linalg.inv(image.affine)
    found = np.zeros(values.shape, np.float32)
    places = list(frame_places(item))
    for pixels, affine in zip(np.atleast_3d(item.pixel_array), places, strict=True):
        rows, columns = np.mgrid[: item.Rows, : item.Columns]
        mm = np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)], axis=1) @ affine.T
        voxels = nib.affines.apply_affine(to_voxel, mm)
        np.testing.assert_allclose(voxels, np.round(voxels), atol=0.02)
        found[tuple(np.round(voxels).astype(int).T)] = pixels.ravel()
    np.testing.assert_allclose(found, values, rtol=1e-6)
    if kind == "map":
        assert len(places) == values.shape[2]


@pytest.mark.parametrize("kind", ["map", "seg"])
def test_objects_refer_to_the_images_of_the_series(folder, kind):
    source = {item.SOPInstanceUID for item in map(pydicom.dcmread, (folder / "new/oblique").iterdir())}
    item = pydicom.dcmread(folder / f"out/dicom/oblique_{kind}.dcm")
    assert item.StudyInstanceUID == "1.2.5"
    assert item.FrameOfReferenceUID == "1.2.6"
    referred = {
        reference.ReferencedSOPInstanceUID for reference in item.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert item.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.4"
    assert referred == source
    assert item.ContentLabel == {"map": "ANOMALY_SCORE", "seg": "ABOVE_THRESHOLD"}[kind]
    assert "not a diagnosis" in item.ContentDescription


@pytest.mark.parametrize("kind", ["map", "seg"])
def test_nothing_of_the_patient_but_what_the_reference_needs(folder, kind):
    item = pydicom.dcmread(folder / f"out/dicom/upright_{kind}.dcm")
    for name, value in KEPT.items():
        assert str(getattr(item, name)) == value
    for name in SECRET:
        assert not item.get(name)
    content = (folder / f"out/dicom/upright_{kind}.dcm").read_bytes()
    for value in SECRET.values():
        if len(value) > 2:
            assert value.encode() not in content


def test_highdicom_reads_the_segmentation_back_as_a_volume(folder):
    seg = highdicom.seg.segread(folder / "out/dicom/oblique_seg.dcm")
    volume = seg.get_volume()
    mask = nib.load(folder / "out/masks/oblique.nii.gz")
    assert volume.array.sum() == np.asarray(mask.dataobj).sum() > 0
    assert seg.segment_count if hasattr(seg, "segment_count") else seg.number_of_segments == 1


@pytest.mark.parametrize("kind", ["map", "seg"])
def test_the_validators_find_no_error(folder, kind):
    path = str(folder / f"out/dicom/oblique_{kind}.dcm")
    if shutil.which("dcmdump") is None or shutil.which("dciodvfy") is None:
        pytest.skip("no dcmdump or dciodvfy (Debian: dcmtk, dicom3tools)")
    dumped = subprocess.run(["dcmdump", path], capture_output=True, text=True, check=False)
    assert dumped.returncode == 0
    assert not re.search(r"^[EF]:", dumped.stderr, flags=re.M)
    converted = subprocess.run(["dcm2json", path], capture_output=True, text=True, check=False)
    assert json.loads(converted.stdout)["00100020"]["Value"] == ["P42"]
    checked = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    assert not re.findall(r"^Error.*", checked.stdout + checked.stderr, flags=re.M)


def test_what_cannot_be_referred_to_is_one_sentence(folder, tmp_path, capsys):
    bare = {name: value for name, value in TAGS.items() if name != "FrameOfReferenceUID"}
    write_series(tmp_path / "new/bare", head(8), AFFINE, **bare)
    save(tmp_path / "new/volume.nii.gz", head(9))
    command = ["predict", str(tmp_path / "new"), "--model", str(folder / "m.h5"), "--out", str(tmp_path / "out")]
    assert main([*command, "--dicom"]) == 1
    captured = capsys.readouterr()
    assert "000.dcm lacks FrameOfReferenceUID: no DICOM object can refer to it." in captured.out
    assert "it is no DICOM series, so no DICOM objects are written of it" in captured.err
    assert not list((tmp_path / "out").glob("dicom/*"))
    assert [path.name for path in (tmp_path / "out/maps").iterdir()] == ["volume.nii.gz"]


def test_without_highdicom_it_says_what_to_install(folder, tmp_path, capsys, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "highdicom":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    command = ["predict", str(folder / "new"), "--model", str(folder / "m.h5"), "--out", str(tmp_path / "o"), "--dicom"]
    assert main(command) == 1
    assert "--dicom needs highdicom, which is not installed: pip install highdicom." in capsys.readouterr().err


def test_a_scan_without_anything_above_the_threshold_has_an_empty_segmentation(folder, tmp_path):
    options = ["--threshold", "1e9", "--dicom"]
    command = ["predict", str(folder / "new/upright"), "--model", str(folder / "m.h5"), "--out", str(tmp_path / "o")]
    assert main([*command, *options]) == 0
    (path,) = (tmp_path / "o/dicom").glob("*_seg.dcm")
    assert not pydicom.dcmread(path).pixel_array.any()
