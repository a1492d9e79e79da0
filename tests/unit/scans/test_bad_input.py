"""Every row of the table of mistakes in docs/errors.md on own scans, made and read back: one sentence, no traceback."""

import json
import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from scan_phantoms import (
    AFFINE,
    MAP_SHAPE,
    head,
    healthy_folder,
    photo,
    resign,
    save,
    save_photo,
    write_predictions,
    write_series,
)

from dinodp.cli import main
from dinodp.commands.arguments import folder_lock

FAST = ["--backbone", "classical", "--resolution", "112", "--method", "dpmm", "components=16", "epochs=1"]
HELD = ExitStack()  # the lock of another process
TINY = Path(__file__).parents[2] / "data/hub_parity_square_448"
PAGE = Path(__file__).parents[3] / "docs/errors.md"


def rows():
    """What is wrong, and its sentence, of every row of the table."""
    section = re.split(r"(?m)^## ", PAGE.read_text())[1]
    return dict(re.findall(r"^\| (.+?) \| (.+?) \|$", section, flags=re.M)[1:])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Models of volumes and of images, in a folder of their own."""
    folder = tmp_path_factory.mktemp("world")
    healthy_folder(folder / "healthy", 3)
    kinds = {
        "images.h5": lambda seed: photo(seed),
        "deep.h5": lambda seed: photo(seed, bits=16),
        "colour.h5": lambda seed: np.stack([photo(seed), photo(seed), 255 - photo(seed)], axis=2),
    }
    for name, draw in kinds.items():
        for seed in range(3):
            save_photo(folder / name[:-3] / f"{seed}.png", draw(seed))
    for name in ("model.h5", *kinds):
        scans = folder / ("healthy" if name == "model.h5" else name[:-3])
        assert main(["fit", str(scans), "--out", str(folder / name), *FAST]) == 0
    return folder


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    """A working directory with the models, healthy scans and one new one."""
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    save(tmp_path / "new/a_t1.nii.gz", head(7))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    HELD.close()


def predict(*scans, model="model.h5"):
    return ["predict", *scans, "--model", model, "--out", "maps"]


def fit(*scans):
    return ["fit", *scans, "--out", "own.h5", *FAST]


def volume(voxels, affine=AFFINE):
    save(Path("new/b.nii.gz"), voxels, affine)
    return predict("new/b.nii.gz")


def written(path, content):
    Path(path).write_bytes(content)
    return predict(path)


def singular():
    image = nib.Nifti1Image(head(7), None)
    image.header["sform_code"], image.header["srow_x"] = 1, [0, 0, 0, 0]
    image.header["srow_y"], image.header["srow_z"] = [0, 2, 0, 0], [0, 0, 2, 0]
    nib.save(image, "new/b.nii")
    return predict("new/b.nii")


def series(edit=None, **tags):
    folder = write_series(Path("new/series"), head(7), AFFINE, **tags)
    if edit:
        edit(folder)
    return predict("new/series")


def mixed_series(folder):
    other = write_series(Path("other"), head(7)[:, :, :1], AFFINE, SeriesInstanceUID="9.9")
    shutil.copy(other / "000.dcm", folder / "x.dcm")


def volume_in(edit, affine=None):
    image = nib.Nifti1Image(head(7), affine)
    edit(image.header)
    nib.save(image, "new/b.nii")
    return predict("new/b.nii")


def turned_by(degrees):
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ AFFINE


def echoes(folder):
    other = write_series(Path("other"), head(8), AFFINE, EchoTime="30")
    for path in other.iterdir():
        item = pydicom.dcmread(path)
        item.SOPInstanceUID += ".2"
        item.save_as(folder / f"second_{path.name}")


def image(pixels, model):
    save_photo(Path("new/b.png"), pixels)
    return predict("new/b.png", model=model)


def pages():
    frames = [Image.fromarray(photo(seed)) for seed in range(2)]
    frames[0].save("new/b.tiff", save_all=True, append_images=frames[1:])
    return predict("new/b.tiff", model="images.h5")


def truncated_png():
    save_photo(Path("new/b.png"), photo(0))
    written("new/b.png", Path("new/b.png").read_bytes()[:600])
    return predict("new/b.png", model="images.h5")


def healthy_with(name, voxels, affine=AFFINE):
    save(Path("healthy") / name, voxels, affine)
    return fit("healthy")


def four_dimensions(*arguments):
    for seed in range(2):
        save(Path(f"h4/{seed}.nii"), np.stack([head(seed)] * 3, axis=3))
    return [*fit("h4"), *arguments]


def two_kinds():
    save_photo(Path("healthy/photo.png"), photo(0))
    return fit("healthy")


def evaluation(*arguments, mask=None):
    truth = write_predictions(Path("maps"), names=("p1", "p2"), healthy=())
    for name, (_, lesion, _) in truth.items():
        save(Path(f"masks/{name}_seg.nii.gz"), lesion.astype(np.uint8))
    if mask is not None:
        save(Path("masks/p2_seg.nii.gz"), *mask(truth["p2"][1]))
    return ["evaluate", "maps", "--masks", "masks", "--mask-suffix", "_seg", *arguments]


def unmasked():
    command = evaluation()
    Path("masks/p2_seg.nii.gz").unlink()
    return command


def no_lesion():
    command = evaluation("--without-mask", "skip", mask=lambda lesion: (lesion.astype(np.uint8) * 0, AFFINE))
    Path("masks/p1_seg.nii.gz").unlink()
    return command


def damaged_model():
    with h5py.File("model.h5", "r+") as file:
        config = json.loads(file.attrs["config"])
        del config["settings"]
        file.attrs["config"] = json.dumps(config)
    resign("model.h5")
    return predict("new")


def strange_model(change):
    with h5py.File("model.h5", "r+") as file:
        config = json.loads(file.attrs["config"])
        change(file, config)
        file.attrs["config"] = json.dumps(config)
    resign("model.h5")
    return predict("new")


def linked(file, config):
    del file["state/means"]
    file.create_dataset("state/means", (16, 92), "uint8", external=[("/etc/passwd", 0, 16 * 92)])


def elsewhere(file, config):
    config["settings"].update(backbone="stranger/net")
    config["backbone"].update(backbone="stranger/net", revision="a" * 40)


def two_at_once():
    HELD.enter_context(folder_lock(Path("maps")))
    return predict("new")


def unseen():
    assert main([*fit("healthy"), "--window", "0", "255"]) == 0
    save(Path("new/b.nii.gz"), head(7) + np.int16(1000) * (head(7) > 0))
    return [*predict("new/b.nii.gz", model="own.h5"), "--force"]


def flipped_model():
    content = bytearray(Path("model.h5").read_bytes())
    content[len(content) // 2] ^= 16
    Path("model.h5").write_bytes(content)
    return predict("new")


def evaluated():
    return ["evaluate", "maps", "--masks", "masks"]


def clipped():
    save_photo(Path("new/b.png"), photo(9, spot=True))
    save_photo(Path("masks/b.png"), photo(9))
    assert main([*predict("new/b.png", model="images.h5"), "--image-format", "png"]) == 0
    return evaluated()


def forgotten_suffixes():
    evaluation()
    for name in ("p1", "p2"):
        save(Path(f"masks/{name}.nii.gz"), np.full(MAP_SHAPE, 300, np.int16))
    return evaluated()


CASES = {
    "no such file or folder": lambda: predict("new/x.nii.gz"),
    "folder without scans": lambda: (Path("empty").mkdir(), predict("empty"))[1],
    "pattern that fits none": lambda: [*predict("new"), "--pattern", "*_flair.nii.gz"],
    "two folders with the same names": lambda: (save(Path("b/a_t1.nii.gz"), head(1)), predict("new", "b"))[1],
    "another format": lambda: written("new/b.mha", b"x"),
    "one file of a DICOM series": lambda: written("new/b.dcm", b"x"),
    "no scan at all": lambda: written("new/notes.txt", b"x"),
    "empty file": lambda: written("new/b.nii.gz", b""),
    "web page saved as a volume": lambda: written("new/b.nii", b"<html>" * 100),
    "truncated volume": lambda: written("new/b.nii.gz", Path("new/a_t1.nii.gz").read_bytes()[:3000]),
    "NaN in a volume": lambda: volume(np.where(head(7) > 420, np.nan, head(7)).astype(np.float32)),
    "complex voxels": lambda: volume(head(7).astype(np.complex64)),
    "4D without index": lambda: volume(np.stack([head(7)] * 3, axis=3)),
    "no such index": lambda: four_dimensions("--index", "3"),
    "index for a 3D volume": lambda: [*fit("healthy"), "--index", "0"],
    "five dimensions": lambda: volume(np.stack([np.stack([head(7)] * 2, axis=3)] * 2, axis=4)),
    "affine that cannot be inverted": singular,
    "voxel size of 0": lambda: volume_in(lambda header: header.__setitem__("pixdim", [1, 0, 2, 2, 0, 0, 0, 0])),
    "larger than a person": lambda: volume(head(7), np.diag([1e3, 1e3, 1e3, 1]) @ AFFINE),
    "surface or connectivity in NIfTI": lambda: volume_in(lambda header: header.set_intent("vector"), AFFINE),
    "pixels in another unit": lambda: [*volume(head(7), np.diag([20, 20, 1, 1]) @ AFFINE), "--force"],
    "one healthy scan in another unit": lambda: healthy_with("x.nii", head(7), np.diag([0.1, 0.1, 0.1, 1]) @ AFFINE),
    "turned by 45 degrees": lambda: volume(head(7), turned_by(44)),
    "slices too small": lambda: volume(head(7)[10:22]),
    "nothing but background": lambda: volume(head(7) * 0),
    "no contrast": lambda: volume((head(7) > 0) * np.int16(300)),
    "truncated image": truncated_png,
    "several images in one file": pages,
    "image too small": lambda: image(photo(0)[:12], "images.h5"),
    "missing DICOM slice": lambda: series(lambda folder: (folder / "005.dcm").unlink()),
    "two DICOM series in one folder": lambda: series(mixed_series),
    "several acquisitions in one DICOM series": lambda: series(echoes),
    "the same DICOM image twice": lambda: series(lambda folder: shutil.copy(folder / "005.dcm", folder / "x.dcm")),
    "several frames in one DICOM file": lambda: series(NumberOfFrames=2),
    "damaged DICOM file": lambda: series(lambda folder: (folder / "005.dcm").write_bytes(b"x")),
    "DICOM without geometry": lambda: series(ImagePositionPatient=None),
    "image for a model of volumes": lambda: image(photo(0), "model.h5"),
    "colour for a model of grey images": lambda: image(np.stack([photo(0), photo(1), photo(2)], axis=2), "images.h5"),
    "16 bits for a model of 8 bits": lambda: image(photo(0, bits=16), "images.h5"),
    "another modality": lambda: volume((head(7) * 20 - 1000 * (head(7) > 0)).astype(np.int16)),
    "another scaling": lambda: volume(head(7) / np.float32(1000)),
    "another spacing": lambda: volume(head(7), AFFINE @ np.diag([1, 1, 2.5, 1])),
    "another body part": lambda: volume(np.kron(head(7), np.ones((2, 2, 1), np.int16))),
    "thick slices cut across": lambda: healthy_with("x.nii", head(7)[:, ::2], AFFINE @ np.diag([1, 3, 1, 1])),
    "a single healthy scan": lambda: fit("healthy/h0.nii.gz"),
    "volumes and images together": two_kinds,
    "one healthy scan unlike the others": lambda: healthy_with("x.nii", head(7) * np.int16(30)),
    "fewer patches than components": lambda: [*fit("healthy"), "--method", "dpmm", "components=90000"],
    "coreset that would take too long": lambda: [
        *fit("healthy"), "--method", "memory_bank", "coreset_fraction=0.5", "coreset_hours=1.0e-9",
    ],
    "keys of an index without one": lambda: [*fit("healthy"), "--method", "memory_bank", "probes=8"],
    "no such layer": lambda: [*fit("healthy"), "--backbone", str(TINY), "--layers", "5"],
    "arithmetic that the engine lacks": lambda: [
        "fit", "healthy", "--out", "own.h5", "--backbone", str(TINY), "--engine", "openvino", "--dtype", "float16",
    ],
    "no such kind of device": lambda: [*fit("healthy"), "--device", "tpu"],
    "no such device": lambda: [*fit("healthy"), "--device", "xpu"],
    "backbone that is not there": lambda: ["fit", "healthy", "--out", "own.h5", "--backbone", "weights/dinov2"],
    "no model": lambda: predict("new", model="none.h5"),
    "model file by another name": lambda: ["fit", "healthy", "--out", "own.card.md", *FAST],
    "model file with a part missing": damaged_model,
    "model file with a flipped bit": flipped_model,
    "model of a stranger with a link to another file": lambda: strange_model(linked),
    "model of a stranger whose backbone is not here": lambda: strange_model(elsewhere),
    "model of a stranger with a broken threshold": lambda: strange_model(
        lambda file, config: config["calibration"]["thresholds"].update(fpr05=1e9)
    ),
    "two at once": two_at_once,
    "nothing of a forced scan within the window": unseen,
    "folder as output of a file": lambda: ["export", "model.h5", "--onnx", "new"],
    "negative seed": lambda: [*fit("healthy"), "--seed", "-1"],
    "something else as model": lambda: predict("new", model="new/a_t1.nii.gz"),
    "output exists": lambda: (Path("maps").mkdir(), Path("maps/x").touch(), predict("new"))[2],
    "output cannot be written": lambda: [*predict("new")[:-1], "model.h5/maps"],
    "threshold that is no number": lambda: [*predict("new"), "--threshold", "nan"],
    "unknown threshold": lambda: [*predict("new"), "--threshold", "fpr20"],
    "no predictions": lambda: (evaluation(), ["combine", "new", "maps", "--out", "both"])[1],
    "masks of other names": lambda: evaluation("--mask-suffix", "_lesion"),
    "suffixes forgotten": forgotten_suffixes,
    "map that is clipped": clipped,
    "record that is another": lambda: (evaluation(), Path("maps/predictions.json").write_text("{}"), evaluated())[2],
    "scan without mask": unmasked,
    "mask on another grid": lambda: evaluation(mask=lambda lesion: (lesion.astype(np.uint8), AFFINE * 1.1)),
    "mask that is no mask": lambda: evaluation(mask=lambda lesion: (lesion * np.float32(2.5), AFFINE)),
    "mask of probabilities": lambda: evaluation(mask=lambda lesion: (lesion * np.float32(0.5), AFFINE)),
    "mask with a channel per class": lambda: evaluation(
        mask=lambda lesion: (np.stack([~lesion, lesion], axis=3).astype(np.uint8), AFFINE)
    ),
    "masks without any lesion": no_lesion,
}


def run(command, capsys):
    capsys.readouterr()
    try:
        status = main(command)
    except SystemExit as stop:  # argparse
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out + captured.err


@pytest.mark.parametrize("what", sorted(CASES))
def test_one_sentence(what, here, capsys):
    status, text = run(CASES[what](), capsys)
    assert status in (1, 2)
    assert "Traceback" not in text
    assert not [path for path in here.rglob("*") if "part" in path.name.split(".")]
    sentence = rows()[what]
    place = 0
    for part in sentence.split("..."):
        place = text.find(part.strip(), place)
        assert place >= 0, f"{part!r} is not in {text!r}"


def test_the_table_lists_these_cases():
    assert set(rows()) == set(CASES)
    assert len(CASES) >= 20
