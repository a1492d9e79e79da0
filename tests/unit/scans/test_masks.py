"""One reader of masks for the benchmark and for `dinodp evaluate`: the same pixels, or the same refusal."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scan_phantoms import AFFINE, FAST_FIT, SHAPE, head, lesion_mask, oblique, photo, save, save_photo

from dinodp.cli import main
from dinodp.datasets.geometry import VolumeGeometry
from dinodp.datasets.manifest import read_manifest
from dinodp.datasets.sources import prepare_dataset
from dinodp.datasets.verification import verify_dataset
from dinodp.errors import InputError
from dinodp.images import read_lesion
from dinodp.scans.reading.masks import read_mask_values, read_volume_mask

SIZE = (80, 112)


def disc():
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    return (rows - 30) ** 2 + (columns - 60) ** 2 <= 64


def plain():
    return Image.fromarray(disc().astype(np.uint8) * 255)


def in_alpha():
    return Image.merge("LA", [Image.new("L", SIZE[::-1], 255), plain()])


def coloured():
    return Image.fromarray(np.stack([disc() * 255, disc() * 0, disc() * 0], axis=2).astype(np.uint8))


def palette():
    picture = Image.fromarray(disc().astype(np.uint8))
    picture.putpalette([0, 0, 0, 255, 0, 0])
    return picture


def labels():
    return Image.fromarray(disc().astype(np.uint8) * 3)


def deep():
    return Image.fromarray(disc().astype(np.uint16) * 65535)


def one_hot():
    return Image.fromarray(np.stack([~disc(), disc(), disc() & False], axis=2).astype(np.uint8) * 255)


def probabilities():
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    share = np.exp(-((rows - 30) ** 2 + (columns - 60) ** 2) / 900)
    return Image.fromarray((share * 120).astype(np.uint8))


MASKS = {
    "plain.png": plain, "alpha.png": in_alpha, "colour.png": coloured, "palette.png": palette, "labels.png": labels,
    "deep.png": deep, "deep.tif": deep, "plain.jpg": plain, "plain.bmp": plain,
}  # fmt: skip
REFUSED = {"one_hot.png": (one_hot, "one channel per class"), "soft.png": (probabilities, "probabilities")}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_means_the_same_to_both(tmp_path, name):
    MASKS[name]().save(tmp_path / name)
    found = read_mask_values(tmp_path / name) > 0
    np.testing.assert_array_equal(found, read_lesion(tmp_path / name, "gt0"))
    assert (found != disc()).mean() < (0.01 if name.endswith("jpg") else 1e-9)


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    for seed in range(4):
        save_photo(folder / f"healthy/{seed}.png", photo(seed))
        save_photo(folder / f"new/p{seed}.png", photo(50 + seed, spot=seed < 3))
    assert main(["fit", str(folder / "healthy"), "--out", str(folder / "m.h5"), *FAST_FIT]) == 0
    assert main(["predict", str(folder / "new"), "--model", str(folder / "m.h5"), "--out", str(folder / "maps")]) == 0
    return folder / "maps"


def evaluated(predicted, folder, draw, suffix, capsys):
    for number in range(4):
        path = folder / f"masks/p{number}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        (draw() if number < 3 else Image.new("L", SIZE[::-1])).save(path)
    capsys.readouterr()
    arguments = ["evaluate", str(predicted), "--masks", str(folder / "masks"), "--resamples", "3"]
    status = main([*arguments, "--out", str(folder / "t.csv")])
    return status, (folder / "t.csv").read_text() if status == 0 else capsys.readouterr().err


@pytest.mark.parametrize("name", ["alpha.png", "labels.png", "plain.bmp"])
def test_evaluation_does_not_depend_on_how_a_mask_is_written(predicted, tmp_path, name, capsys):
    found = []
    for number, (draw, suffix) in enumerate(((plain, "png"), (MASKS[name], name.rpartition(".")[2]))):
        (tmp_path / str(number)).mkdir()
        found.append(evaluated(predicted, tmp_path / str(number), draw, suffix, capsys))
    assert found[0] == found[1]
    assert found[0][0] == 0
    assert "scan_auroc" in found[0][1]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_mask_is_refused_by_both(predicted, tmp_path, name, capsys):
    draw, sentence = REFUSED[name]
    status, said = evaluated(predicted, tmp_path, draw, "png", capsys)
    assert (status, sentence in said) == (1, True)
    for number in range(3):
        save_photo(tmp_path / f"d/train/good/{number}.png", photo(number))
        save_photo(tmp_path / f"d/test/good/{number}.png", photo(10 + number))
    save_photo(tmp_path / "d/test/bad/b.png", photo(20, spot=True))
    (tmp_path / "d/ground_truth/bad").mkdir(parents=True)
    draw().save(tmp_path / "d/ground_truth/bad/b_mask.png")
    manifest = prepare_dataset("x", {"source": "image_folder", "root": str(tmp_path / "d")}, tmp_path / "out")
    report, _ = verify_dataset(read_manifest(manifest), {})
    assert sentence in str(report["deviations"])


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64, bool])
def test_labels_of_a_volume_may_be_of_any_type(tmp_path, kind):
    stored = lesion_mask().astype(kind) if kind is not bool else lesion_mask().astype(np.uint8)
    path = save(tmp_path / "m.nii.gz", stored, oblique(AFFINE))
    geometry = VolumeGeometry(SHAPE, oblique(AFFINE), 2)
    np.testing.assert_array_equal(geometry.from_stack(read_volume_mask(path, geometry)), lesion_mask())


def test_labels_that_a_slope_scales_are_rounded(tmp_path):
    image = nib.Nifti1Image(lesion_mask().astype(np.float32), AFFINE)
    image.header.set_data_dtype(np.uint8)
    nib.save(image, tmp_path / "m.nii.gz")
    geometry = VolumeGeometry(SHAPE, AFFINE, 2)
    np.testing.assert_array_equal(
        geometry.from_stack(read_volume_mask(tmp_path / "m.nii.gz", geometry)), lesion_mask()
    )


@pytest.mark.parametrize(
    ("voxels", "sentence"),
    [
        (lesion_mask() * np.float32(0.7), "holds probabilities from 0 to 1: write it as labels"),
        (head(0) / np.float32(100), "must hold labels 0, 1, 2, ..., not negative or broken numbers"),
        (lesion_mask() * np.int16(-1), "must hold labels 0, 1, 2"),
        (np.stack([~lesion_mask(), lesion_mask()], axis=3).astype(np.uint8), "such as one channel per class"),
    ],
)
def test_what_is_no_mask_of_a_volume_is_refused(tmp_path, voxels, sentence):
    path = save(tmp_path / "m.nii.gz", voxels)
    with pytest.raises(InputError, match=sentence):
        read_volume_mask(path, VolumeGeometry(SHAPE, AFFINE, 2))
