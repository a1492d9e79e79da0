"""BMAD-like liver slices from small CT volumes in the layouts of BTCV and LiTS."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from dinodp.datasets.manifest import read_manifest
from dinodp.datasets.sources import prepare_dataset
from dinodp.datasets.sources.liver_volumes import liver_slice
from dinodp.errors import InputError

SHAPE = (32, 32, 6)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(values.astype(np.float32), np.eye(4)).to_filename(path)


def labels(liver, lesion=None):
    result = np.zeros(SHAPE)
    result[5:25, 5:25, 1:5] = liver
    if lesion:
        result[10:14, 8:12, 2] = lesion
    return result


@pytest.fixture
def raw(tmp_path):
    generator = np.random.default_rng(0)
    for index in range(2):
        save(tmp_path / f"btcv/img/img000{index}.nii.gz", generator.normal(60, 200, SHAPE))
        save(tmp_path / f"btcv/label/label000{index}.nii.gz", labels(6))
    for index in range(3):
        save(tmp_path / f"lits/volume-{index}.nii", generator.normal(60, 200, SHAPE))
        save(tmp_path / f"lits/segmentation-{index}.nii", labels(1, 2))
    return tmp_path


def prepare(raw, **options):
    entry = {"source": "liver_volumes", "btcv": str(raw / "btcv"), "lits": str(raw / "lits"), **options}
    return read_manifest(prepare_dataset("x", entry, raw / "out"))


def test_splits_labels_and_masks(raw):
    frame = prepare(raw)
    counts = frame.groupby(["split", "label"]).size().to_dict()
    assert counts == {
        ("train", "normal"): 8,
        ("valid", "normal"): 3,
        ("valid", "anomalous"): 1,
        ("test", "normal"): 6,
        ("test", "anomalous"): 2,
    }
    assert frame.groupby("subject")["split"].nunique().max() == 1
    mask = np.asarray(Image.open(frame[frame["label"] == "anomalous"]["mask"].iloc[0]))
    np.testing.assert_array_equal(mask, np.flipud((labels(1, 2)[:, :, 2] == 2).T) * 255)


def test_processing_by_hand():
    values = np.array([[0.0, 100.0], [200.0, 255.0]], dtype=np.float32)
    liver = np.array([[True, True], [True, False]])
    # grey 0, 100, 200, 255; times liver; flipped; bins 100 and 200 hold one pixel each: CDF 0.5 and 1
    # floor(127.5) = 127 < 150: floor(127 / 150 * 120 + 30) = 131; 255 stays
    np.testing.assert_array_equal(liver_slice(values, liver, None), [[255, 0], [0, 131]])
    clipped = liver_slice(values * 10 - 1000, np.ones((2, 2), dtype=bool), (-200.0, 250.0))
    assert clipped[0, 0] == clipped[0, 1] == 255  # both above the window


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (
            lambda raw: (raw / "lits/segmentation-1.nii").unlink(),
            "volume-1.nii has no segmentation .*segmentation-1.nii",
        ),
        (lambda raw: (raw / "btcv/img").rename(raw / "btcv/images"), r"btcv holds no volume img/img\*.nii.gz"),
        (lambda raw: save(raw / "lits/segmentation-0.nii", np.zeros((3, 3, 3))), "has the shape .3, 3, 3., its volume"),
        (
            lambda raw: [(raw / f"lits/volume-{i}.nii").unlink() for i in (1, 2)],
            "holds one volume; validation and test",
        ),
        (
            lambda raw: save(raw / "lits/volume-0.nii", np.full(SHAPE, np.inf)),
            "volume-0.nii holds 6144 voxels that are not",
        ),
    ],
)
def test_what_is_wrong_is_said(raw, break_it, sentence):
    break_it(raw)
    with pytest.raises(InputError, match=sentence):
        prepare(raw)
