"""`dinodp fit` and `dinodp predict` from files to files."""

import gzip
import json
import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scan_phantoms import (
    AFFINE,
    FAST_FIT,
    LESION_AT,
    ORIENTATIONS,
    SHAPE,
    WINDOW,
    head,
    healthy_folder,
    lesion_mask,
    oblique,
    photo,
    reoriented,
    save,
    save_photo,
)

from dinodp import store
from dinodp.cli import main
from dinodp.errors import InputError
from dinodp.scans.writing.maps import encoded, read_map, write_mask
from dinodp.scans.writing.views import LEGEND


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    healthy, path = healthy_folder(folder / "healthy"), folder / "model.h5"
    assert main(["fit", str(healthy), "--out", str(path), *FAST_FIT, *WINDOW]) == 0
    return path


def calibration_of(model):
    return store.read_state(model, "detector")[0]["calibration"]


def predict(model, out, *scans, options=()):
    return main(["predict", *map(str, scans), "--model", str(model), "--out", str(out), *options])


def test_fit_writes_model_and_card_and_nothing_else(model, capsys):
    assert sorted(path.name for path in model.parent.iterdir()) == ["healthy", "model.card.md", "model.h5"]
    assert main(["info", str(model)]) == 0
    assert "state/means: float32 [16, 92]" in capsys.readouterr().out


def peak_in_mm(image):
    return nib.affines.apply_affine(image.affine, np.unravel_index(image.get_fdata().argmax(), image.shape))


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.float32])
def test_map_lies_on_the_lesion_in_mm_for_every_orientation(model, tmp_path, kind):
    """Flipped, permuted, oblique: the map has the scan's affine and shape, and its peak the lesion's place in mm."""
    given = {}
    for affine in (AFFINE, oblique(AFFINE)):
        for orientation in ORIENTATIONS[:: 13 if kind == np.int16 else 47]:
            stored, placed = reoriented(head(7, lesion=True).astype(kind), affine, orientation)
            path = save(tmp_path / f"in/s{len(given)}.nii.gz", stored, placed)
            given[path] = nib.affines.apply_affine(affine, LESION_AT)
    assert predict(model, tmp_path / "out", tmp_path / "in", options=["--masks"]) == 0
    regions = pd.read_csv(tmp_path / "out/regions.csv").set_index(["scan", "region"])
    scans = pd.read_csv(tmp_path / "out/scans.csv").set_index("scan")
    threshold = calibration_of(model)["thresholds"]["fpr01"]
    maps = []
    for path, truth in given.items():
        name, scan = path.name.removesuffix(".nii.gz"), nib.load(path)
        found, mask = (nib.load(tmp_path / f"out/{folder}/{name}.nii.gz") for folder in ("maps", "masks"))
        for image in (found, mask):
            assert image.shape == scan.shape
            np.testing.assert_allclose(image.affine, scan.affine, atol=1e-5)
        assert found.get_data_dtype() == np.float32
        assert np.linalg.norm(peak_in_mm(found) - truth) < 16  # a patch measures 11 mm
        np.testing.assert_array_equal(np.asarray(mask.dataobj) > 0, found.get_fdata() > threshold)
        largest = regions.loc[(name, 1)]
        place = largest[["x_mm", "y_mm", "z_mm"]].to_numpy(float)
        assert np.linalg.norm(place - truth) < 16
        voxel = largest[["i", "j", "k"]].to_numpy(float)
        np.testing.assert_allclose(nib.affines.apply_affine(scan.affine, voxel), place, atol=0.1)
        assert largest["volume_ml"] == pytest.approx(largest["size"] * 8 / 1000)
        assert scans.loc[name, "ml_above"] == pytest.approx(np.asarray(mask.dataobj).sum() * 0.008)
        maps.append(nib.as_closest_canonical(found).get_fdata())
    for values in maps[1:]:
        np.testing.assert_allclose(values, maps[0], atol=1e-3)
    lesion = lesion_mask()
    assert maps[0][lesion].mean() > np.quantile(maps[0][(head(7) > 0) & ~lesion], 0.9)


def test_anisotropic_voxels(tmp_path):
    """Thick slices: fitted and scored on them; the map overlays the lesion in mm."""
    thick = AFFINE @ np.diag([1, 1, 3, 1])
    for seed in range(4):
        save(tmp_path / f"healthy/h{seed}.nii.gz", head(seed)[:, :, 1::3], thick)
    assert main(["fit", str(tmp_path / "healthy"), "--out", str(tmp_path / "m.h5"), *FAST_FIT, *WINDOW]) == 0
    for number, orientation in enumerate(ORIENTATIONS[::11]):
        path = tmp_path / f"new/l{number}.nii.gz"
        save(path, *reoriented(head(7, lesion=True)[:, :, 1::3], oblique(thick), orientation))
    assert predict(tmp_path / "m.h5", tmp_path / "out", tmp_path / "new") == 0
    truth = nib.affines.apply_affine(oblique(thick), np.array(LESION_AT) * [1, 1, 1 / 3] - [0, 0, 1 / 3])
    for path in sorted((tmp_path / "out/maps").iterdir()):
        assert np.linalg.norm(peak_in_mm(nib.load(path)) - truth) < 16


def test_what_is_written(model, tmp_path, capsys):
    save(tmp_path / "new/a.nii.gz", head(7, lesion=True))
    save(tmp_path / "new/deeper/b.nii", head(8))
    assert predict(model, tmp_path / "out", tmp_path / "new", options=["--masks", "--overlays", "--regions", "2"]) == 0
    out = tmp_path / "out"
    assert capsys.readouterr().out == f"2 of 2 scans scored: {out / 'gallery.html'}\n"
    assert sorted(path.name for path in out.iterdir()) == [
        "gallery.html", "maps", "masks", "overlays", "predictions.json", "regions.csv", "scans.csv", "slices.csv"
    ]  # fmt: skip
    for folder in ("maps", "masks"):
        assert sorted(path.name for path in (out / folder).iterdir()) == ["a.nii.gz", "deeper__b.nii.gz"]
    scans, slices, regions = (pd.read_csv(out / f"{name}.csv") for name in ("scans", "slices", "regions"))
    assert scans["scan"].tolist() == ["a", "deeper__b"]
    assert scans["status"].tolist() == ["scored", "scored"]
    assert scans["score"][0] > scans["score"][1]
    assert scans["healthy_held_out"].tolist() == [1, 1]
    highest = slices.loc[slices[slices["scan"] == "a"]["score"].idxmax()]
    assert highest["slice"] == scans["highest_slice"][0]
    assert abs(highest["slice"] - LESION_AT[2]) <= 5
    assert regions.groupby("scan").size().max() <= 2
    pictures = [path for path in (out / "overlays").iterdir() if path.name.startswith("a_")]
    assert len(pictures) == 3
    shown = np.asarray(Image.open(out / f"overlays/a_{highest['slice']:03d}.png"))
    assert max(shown[:-LEGEND].shape[:2]) == 320
    assert (shown.max(axis=2) != shown.min(axis=2)).any()  # coloured
    record = json.loads((out / "predictions.json").read_text())
    assert record["note"].endswith("it is no diagnosis.")
    assert record["model"] == "model.h5"


def test_pictures_show_the_patients_right_on_the_left(model, tmp_path):
    save(tmp_path / "a.nii.gz", head(7, lesion=True))  # the lesion is on the right
    assert predict(model, tmp_path / "out", tmp_path / "a.nii.gz", options=["--overlays"]) == 0
    row = pd.read_csv(tmp_path / "out/scans.csv").iloc[0]
    shown = np.asarray(Image.open(tmp_path / f"out/overlays/a_{row['highest_slice']:03d}.png")).astype(int)[:-LEGEND]
    coloured = np.argwhere(shown[..., 0] - shown[..., 2] > 60)  # the warm end of the colours
    assert len(coloured)
    assert coloured[:, 1].mean() < shown.shape[1] / 2


def test_a_failed_scan_does_not_stop_the_others(model, tmp_path, capsys):
    save(tmp_path / "new/a.nii.gz", head(8))
    (tmp_path / "new/b.nii.gz").write_bytes((tmp_path / "new/a.nii.gz").read_bytes()[:2000])
    save_photo(tmp_path / "new/c.png", photo(0))
    save(tmp_path / "new/d.nii.gz", head(9))
    assert predict(model, tmp_path / "out", tmp_path / "new") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 of 4 scans scored")
    assert lines[1] == "Not scored:"
    assert "b.nii.gz is damaged" in lines[2]
    assert "c.png belongs to images, but the model was fitted on volumes" in lines[3]
    scans = pd.read_csv(tmp_path / "out/scans.csv").set_index("scan")
    assert scans["status"].to_dict() == {"a": "scored", "b": "failed", "c": "failed", "d": "scored"}
    assert "damaged" in scans.loc["b", "message"]
    assert sorted(path.name for path in (tmp_path / "out/maps").iterdir()) == ["a.nii.gz", "d.nii.gz"]
    assert "2 scans could not be scored" in (tmp_path / "out/gallery.html").read_text()


def test_an_unexpected_error_does_not_stop_the_others_either(model, tmp_path, capsys, monkeypatch):
    save(tmp_path / "new/a.nii.gz", head(8))
    save(tmp_path / "new/b.nii.gz", head(9))
    real = nib.save

    def failing(image, path):
        if "a.nii" in str(path):
            raise OSError(28, "No space left on device")
        real(image, path)

    monkeypatch.setattr("dinodp.scans.writing.maps.nib.save", failing)
    assert predict(model, tmp_path / "out", tmp_path / "new") == 1
    sentence = r"a.nii.gz cannot be written: the disk or the quota is full; [0-9.]+ MiB are free on its file system"
    assert re.search(sentence, capsys.readouterr().out)
    assert [path.name for path in (tmp_path / "out/maps").iterdir()] == ["b.nii.gz"]
    monkeypatch.setattr("dinodp.scans.writing.maps.nib.save", lambda image, path: 1 / 0)
    assert predict(model, tmp_path / "out", tmp_path / "new", options=["--overwrite"]) == 1
    assert "b.nii.gz failed unexpectedly (ZeroDivisionError: division by zero)" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_place_is_kept_but_nothing_that_names_a_patient(model, tmp_path, kind):
    image = kind(head(8), AFFINE)
    image.set_sform(AFFINE, code=4)
    image.set_qform(oblique(AFFINE), code=1)
    image.header.set_xyzt_units("mm", "sec")
    names = {"descrip", "aux_file", "intent_name", *({"db_name"} if kind is nib.Nifti1Image else ())}
    for name in names:
        image.header[name] = b"Jane Doe"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    (tmp_path / "in").mkdir()
    nib.save(image, tmp_path / "in/x.nii")
    assert predict(model, tmp_path / "out", tmp_path / "in/x.nii", options=["--masks"]) == 0
    for folder in ("maps", "masks"):
        found = nib.load(tmp_path / f"out/{folder}/x.nii.gz")
        assert isinstance(found, kind)
        for code, form in (("sform_code", "get_sform"), ("qform_code", "get_qform")):
            assert int(found.header[code]) == int(image.header[code])
            np.testing.assert_allclose(getattr(found, form)(), getattr(image, form)(), atol=1e-5)
        assert found.header.get_xyzt_units() == ("mm", "sec")
        assert b"Jane" not in gzip.decompress((tmp_path / f"out/{folder}/x.nii.gz").read_bytes())
    assert nib.load(tmp_path / "out/maps/x.nii.gz").header["descrip"].item().decode() == "anomaly map, not a diagnosis"


def test_same_inputs_same_bytes(model, tmp_path):
    save(tmp_path / "new/a.nii.gz", head(7, lesion=True))
    for out in ("one", "two"):
        assert predict(model, tmp_path / out, tmp_path / "new", options=["--masks", "--overlays"]) == 0
    written = [path for path in (tmp_path / "one").rglob("*.*") if path.is_file()]
    assert len(written) >= 8
    for path in written:
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_every_third_slice(model, tmp_path):
    save(tmp_path / "a.nii.gz", head(7, lesion=True))
    for step in (1, 3):
        assert predict(model, tmp_path / f"o{step}", tmp_path / "a.nii.gz", options=["--slice-step", str(step)]) == 0
    counts = [len(pd.read_csv(tmp_path / f"o{step}/slices.csv")) for step in (1, 3)]
    assert counts[1] <= counts[0] // 3 + 2
    dense, sparse = (nib.load(tmp_path / f"o{step}/maps/a.nii.gz").get_fdata() for step in (1, 3))
    inside = head(7) > 0
    assert np.corrcoef(dense[inside], sparse[inside])[0, 1] > 0.9


def test_one_volume_of_four_dimensions(tmp_path):
    for seed in range(4):
        save(tmp_path / f"h/{seed}.nii.gz", np.stack([head(seed) * 0 + 7, head(seed)], axis=3))
    assert main(["fit", str(tmp_path / "h"), "--index", "1", "--out", str(tmp_path / "m.h5"), *FAST_FIT]) == 0
    save(tmp_path / "x.nii.gz", np.stack([head(5) * 0, head(5)], axis=3))
    assert predict(tmp_path / "m.h5", tmp_path / "out", tmp_path / "x.nii.gz") == 0
    assert nib.load(tmp_path / "out/maps/x.nii.gz").shape == SHAPE


@pytest.mark.parametrize("bits", [8, 16])
def test_images(tmp_path, bits, capsys):
    for seed in range(6):
        save_photo(tmp_path / f"healthy/h{seed}.png", photo(seed, bits=bits))
    save_photo(tmp_path / "new/spot.png", photo(9, spot=True, bits=bits))
    save_photo(tmp_path / "new/plain.png", photo(0, bits=bits))
    assert main(["fit", str(tmp_path / "healthy"), "--out", str(tmp_path / "m.h5"), *FAST_FIT]) == 0
    for kind in ("png", "tiff"):
        options = ["--image-format", kind, "--masks", "--overlays", "--threshold", "fpr05"]
        assert predict(tmp_path / "m.h5", tmp_path / kind, tmp_path / "new", options=options) == 0
        assert not (tmp_path / kind / "slices.csv").exists()
    calibration = calibration_of(tmp_path / "m.h5")
    scaled = Image.open(tmp_path / "png/maps/spot.png")
    assert scaled.mode == "I;16"
    low, high = calibration["map_range"]
    exact, scored, _ = read_map(tmp_path / "tiff/maps/spot.tiff", (low, high), -1e9)
    assert scored.all()
    np.testing.assert_array_equal(np.asarray(scaled), encoded(exact, scored, (low, high)))
    assert exact.max() > high  # the spot is far above the healthy scores
    with pytest.raises(InputError, match=r"spot\.png is clipped"):
        read_map(tmp_path / "png/maps/spot.png", (low, high), -1e9)
    assert "spot.png is clipped at 65535" in capsys.readouterr().err
    decoded, _, _ = read_map(tmp_path / "png/maps/plain.png", (low, high), -1e9)
    plain, _, _ = read_map(tmp_path / "tiff/maps/plain.tiff", (low, high), -1e9)
    np.testing.assert_allclose(decoded, np.clip(plain, low, high), atol=(high - low) / 65535)
    row, column = np.unravel_index(exact.argmax(), exact.shape)
    assert abs(row - 30) < 12
    assert abs(column - 60) < 12
    mask = np.asarray(Image.open(tmp_path / "png/masks/spot.png"))
    np.testing.assert_array_equal(mask, 255 * (exact > calibration["thresholds"]["fpr05"]).astype(np.uint8))
    regions = pd.read_csv(tmp_path / "png/regions.csv").set_index("scan").loc[["spot"]]
    assert regions["x_mm"].isna().all()
    assert abs(regions["i"].iloc[0] - 30) < 12
    assert abs(regions["j"].iloc[0] - 60) < 12
    assert Image.open(tmp_path / "png/overlays/spot.png").width == 320


def test_a_threshold_may_be_a_score(model, tmp_path):
    save(tmp_path / "a.nii.gz", head(8))
    assert predict(model, tmp_path / "out", tmp_path / "a.nii.gz", options=["--threshold", "1e9", "--masks"]) == 0
    assert not nib.load(tmp_path / "out/masks/a.nii.gz").get_fdata().any()
    assert pd.read_csv(tmp_path / "out/scans.csv")["regions_above"].tolist() == [0]
    assert pd.read_csv(tmp_path / "out/regions.csv").empty


def test_nothing_is_overwritten_unasked(model, tmp_path, capsys):
    save(tmp_path / "a.nii.gz", head(8))
    assert predict(model, tmp_path / "out", tmp_path / "a.nii.gz") == 0
    assert predict(model, tmp_path / "out", tmp_path / "a.nii.gz") == 1
    assert "out exists already: choose another name, or add --overwrite" in capsys.readouterr().err
    assert predict(model, tmp_path / "out", tmp_path / "a.nii.gz", options=["--overwrite"]) == 0
    assert main(["fit", str(tmp_path), "--out", str(model), *FAST_FIT]) == 1


def test_an_overwritten_folder_holds_the_files_of_one_run(model, tmp_path):
    for name, seed in (("a", 8), ("b", 9)):
        save(tmp_path / f"{name}.nii.gz", head(seed))
    out = tmp_path / "out"
    assert predict(model, out, tmp_path / "a.nii.gz", options=["--masks", "--overlays"]) == 0
    for mine in ("notes.txt", "masks/mine.nii.gz"):
        (out / mine).touch()
    (tmp_path / "outside").touch()
    record = json.loads((out / "predictions.json").read_text())
    record["scans"][0]["files"].append("../outside")
    (out / "predictions.json").write_text(json.dumps(record))
    assert predict(model, out, tmp_path / "b.nii.gz", options=["--overwrite"]) == 0
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "gallery.html", "maps/b.nii.gz", "masks/mine.nii.gz", "notes.txt", "predictions.json", "regions.csv",
        "scans.csv", "slices.csv",
    ]  # fmt: skip
    assert (tmp_path / "outside").exists()


def test_tissue_that_the_backbone_does_not_see_is_not_scored(model, tmp_path):
    """A forced scan twice as large: what lies outside the field of view is not counted, in no table and no mask."""
    large = np.kron(head(8), np.ones((2, 2, 1), np.int16))
    save(tmp_path / "a.nii.gz", large)
    assert predict(model, tmp_path / "out", tmp_path / "a.nii.gz", options=["--force", "--threshold", "-1000000"]) == 0
    seen = nib.load(tmp_path / "out/maps/a.nii.gz").get_fdata() > record_of(tmp_path / "out")["outside"]
    side = store.read_state(model, "detector")[0]["healthy"]["side"] / 2  # pixels
    assert seen.any(axis=(1, 2)).sum() <= side + 1
    assert seen.any(axis=(0, 2)).sum() <= side + 1
    assert (large > 0).any(axis=(0, 2)).sum() > side + 10
    row = pd.read_csv(tmp_path / "out/scans.csv").iloc[0]
    assert row["share_above"] == 1
    assert row["ml_above"] == pytest.approx(seen.sum() * 0.008)


def test_a_scan_that_is_not_seen_at_all_is_refused(model, tmp_path, capsys):
    """Two bodies at the ends of a wide field: the middle, which the backbone sees, is empty."""
    pair = np.concatenate([head(8), np.zeros((100, *SHAPE[1:]), np.int16), head(9)])
    save(tmp_path / "a.nii.gz", pair)
    assert predict(model, tmp_path / "out", tmp_path / "a.nii.gz", options=["--force"]) == 1
    assert "nothing of its foreground lies within the field of view" in capsys.readouterr().out


def record_of(out):
    return json.loads((out / "predictions.json").read_text())["scans"][0]


def test_force_scores_what_does_not_fit(model, tmp_path):
    save(tmp_path / "a.nii.gz", head(8).astype(np.float32) / 10)
    assert predict(model, tmp_path / "out", tmp_path / "a.nii.gz") == 1
    assert predict(model, tmp_path / "forced", tmp_path / "a.nii.gz", options=["--force"]) == 0


@pytest.mark.parametrize("command", ["fit", "predict", "evaluate", "compare", "export", "info"])
def test_every_command_has_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: dinodp {command}")
    assert "None" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_stopped_by_the_user(model, tmp_path, capsys, monkeypatch):
    """What was done is kept, with its tables; of the scan that was being written nothing is."""
    for name in "ab":
        save(tmp_path / f"new/{name}.nii.gz", head(8))

    def interrupt(path, *rest):
        if path.name == "b.nii.gz":
            raise KeyboardInterrupt
        write_mask(path, *rest)

    monkeypatch.setattr("dinodp.scans.writing.prediction.write_mask", interrupt)
    assert predict(model, tmp_path / "out", tmp_path / "new", options=["--masks"]) == 130
    assert "stopped; files that were written are complete" in capsys.readouterr().err
    assert pd.read_csv(tmp_path / "out/scans.csv")["scan"].tolist() == ["a"]
    assert [path.name for path in (tmp_path / "out/maps").iterdir()] == ["a.nii.gz"]
    assert (tmp_path / "out/gallery.html").is_file()


def test_what_cannot_be_written_is_told_before_the_work(tmp_path, capsys):
    """The scans are not even looked for."""
    (tmp_path / "file").touch()
    (tmp_path / "m.card.md").mkdir()
    for out, sentence in (
        ("file/m.h5", "Nothing can be written into"),
        ("m.h5", "m.card.md is a folder"),
    ):
        assert main(["fit", str(tmp_path / "none"), "--out", str(tmp_path / out), *FAST_FIT]) == 1
        assert sentence in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none.h5"), "--onnx", str(tmp_path / "file/x.onnx")]) == 1
    assert "Nothing can be written into" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "m.card.md"]


def test_a_page_that_cannot_be_written_is_one_sentence(model, tmp_path, capsys):
    save(tmp_path / "a.nii.gz", head(8))
    (tmp_path / "out/gallery.html").mkdir(parents=True)
    assert predict(model, tmp_path / "out", tmp_path / "a.nii.gz", options=["--overwrite"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("dinodp: ")
    assert "gallery.html" in error
    assert pd.read_csv(tmp_path / "out/scans.csv")["scan"].tolist() == ["a"]
    assert not list((tmp_path / "out").glob("*part*"))


def test_the_command_line_does_not_import_torch():
    """It takes seconds, which nobody waits for help or for a mistyped option."""
    code = (
        "import sys\nfrom dinodp.cli import main\n"
        "for command in ('fit', 'predict', 'evaluate', 'compare', 'export', 'info'):\n"
        "    try: main([command, '--help'])\n    except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_scan_that_the_system_refuses_is_one_that_cannot_be_read(model, tmp_path, monkeypatch, capsys):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    save(tmp_path / "a.nii.gz", head(8))
    monkeypatch.setattr("dinodp.scans.writing.prediction.read_scan", refused)
    assert predict(model, tmp_path / "out", tmp_path / "a.nii.gz") == 1
    told = pd.read_csv(tmp_path / "out/scans.csv")["message"][0]
    assert re.fullmatch(rf"{re.escape(str(tmp_path))}/a.nii.gz: it cannot be read \(Permission denied.*\)\.", told)
    assert told in capsys.readouterr().err
