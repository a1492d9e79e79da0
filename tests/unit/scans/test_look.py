"""Scans that were not prepared as the healthy ones: heads among brains, other fields of view, other resolutions."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scan_phantoms import AFFINE, FAST_FIT, WINDOW, head, healthy_folder, save
from scipy import ndimage

from dinodp.cli import main
from dinodp.errors import InputError
from dinodp.scans.detecting.healthy import Measures
from dinodp.scans.detecting.look import Look, Looks, odd_looks
from dinodp.scans.reading.folder import ReadingOptions, read_scan

BRAIN = Look(ml=1400, height=135, ring=0.02, slices=1, rows=1, columns=1)


def look_of(path):
    return Measures.of(read_scan(path.name, path, ReadingOptions())).look


def with_skull(brain, dark_mm=6, bright_mm=6):
    """The brain [2 mm] in a dark and a bright layer, as skull and scalp are on T1."""
    inside = np.pad(brain, 8) > 0
    distance = ndimage.distance_transform_edt(~inside) * 2
    values = np.pad(brain, 8)
    values[(distance > dark_mm) & (distance <= dark_mm + bright_mm)] = 500
    values[(distance > 0) & (distance <= dark_mm)] = 10
    return values


def test_a_head_has_a_dark_ring_and_a_brain_none(tmp_path):
    brain = look_of(save(tmp_path / "brain.nii.gz", head(0)))
    whole = look_of(save(tmp_path / "head.nii.gz", with_skull(head(0))))
    assert brain.ring < 0.06
    assert whole.ring > 0.3
    assert whole.ml > 1.5 * brain.ml
    assert brain.ml == pytest.approx((head(0) > 0).sum() * 0.008, rel=0.05)


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_a_look_is_that_of_the_body_whatever_the_voxels(tmp_path, axis):
    """Height goes along the slices; volume and ring hardly depend on the size of voxels."""
    path = save(tmp_path / "a.nii.gz", with_skull(head(0)))
    fine = AFFINE.copy()
    fine[:3, :3] /= 2
    finer = save(tmp_path / "b.nii.gz", ndimage.zoom(with_skull(head(0)).astype(float), 2, order=0), fine)
    found = [Measures.of(read_scan("a", item, ReadingOptions(axis=axis))).look for item in (path, finer)]
    assert found[0].ml == pytest.approx(found[1].ml, rel=0.02)
    assert found[0].height == pytest.approx(found[1].height, abs=2)
    assert found[0].ring == pytest.approx(found[1].ring, abs=0.1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ml": 4000}, "its foreground has 4000 ml, that of the healthy scans 1400 ml: stripped of the skull, or cut,"),
        ({"ml": 700}, "its foreground has 700 ml"),
        ({"height": 190}, "reaches over 190 mm across the slices, that of the healthy scans over 135 mm: "),
        ({"ring": 0.16}, "16% of what lies 4 to 15 mm below its surface is dark, in the healthy scans 2% to 2%"),
        ({"slices": 1.9}, "its slices lie 1.9 mm apart, those of the healthy scans 1 mm: another resolution"),
        ({"columns": 0.5}, "its columns lie 0.5 mm apart"),
    ],
)
def test_each_difference_is_a_sentence(change, sentence):
    said = list(Looks.over([BRAIN]).unlike(replace(BRAIN, **change)))
    assert len(said) == 1
    assert sentence in said[0]


def test_what_is_alike_is_not_said():
    alike = [replace(BRAIN, ml=1000), replace(BRAIN, height=150), replace(BRAIN, ring=0.07), replace(BRAIN, rows=1.2)]
    assert [said for look in alike for said in Looks.over([BRAIN]).unlike(look)] == []


def test_one_odd_scan_among_the_healthy():
    """Two of them would make a range."""
    looks = [BRAIN] * 5
    odd = replace(BRAIN, ml=4000)
    assert [name for name, _ in odd_looks(list("abcdef"), [*looks, odd])] == ["f"]
    assert list(odd_looks(list("abcdefg"), [*looks, odd, odd])) == []
    assert list(odd_looks(list("abcd"), [*looks[:3], odd])) == []


@pytest.mark.parametrize("pair", [(2.0, 1.0), (-1.0, 1.0), (0.0, float("nan"))])
def test_ranges_of_a_stranger_are_checked(pair):
    pairs = dict.fromkeys(("height", "ring", "slices", "rows", "columns"), (1.0, 1.0))
    with pytest.raises(InputError, match="The healthy range's ml"):
        Looks(ml=pair, **pairs)


def test_fit_and_predict_say_it(tmp_path, capsys):
    healthy, model = healthy_folder(tmp_path / "healthy", 5), tmp_path / "m.h5"
    assert main(["fit", str(healthy), "--out", str(model), *FAST_FIT, *WINDOW]) == 0
    assert "unlike the other healthy scans" not in capsys.readouterr().err
    save(tmp_path / "new/brain.nii.gz", head(8))
    save(tmp_path / "new/head.nii.gz", with_skull(head(8)))
    options = ["--model", str(model), "--out", str(tmp_path / "out"), "--force"]
    assert main(["predict", str(tmp_path / "new"), *options]) == 0
    said = pd.read_csv(tmp_path / "out/scans.csv").set_index("scan")["message"].fillna("")
    assert said["brain"] == ""
    assert "ml: stripped of the skull, or cut, otherwise?" in said["head"]
    assert "a skull here and not there, or the reverse?" in said["head"]
    save(healthy / "z.nii.gz", with_skull(head(9)))
    assert main(["fit", str(healthy), "--out", str(tmp_path / "n.h5"), *FAST_FIT, *WINDOW]) == 0
    assert "z is unlike the other healthy scans: its foreground has" in capsys.readouterr().err


def test_real_brains_are_alike(shared):
    """Healthy ones of one study, and those of two others: no false alarm (docs/preparation.md has all of them)."""
    data = shared / "data"
    looks = [look_of(path) for path in sorted((data / "oasis_t1/train").glob("*_t1.nii.gz"))[:8]]
    assert list(odd_looks([str(n) for n in range(8)], looks)) == []
    others = [*(data / "oasis_t1/test").glob("*_t1.nii.gz"), *(data / "open_ms").glob("*/flair.nii.gz")]
    assert [said for path in others for said in Looks.over(looks).unlike(look_of(path))] == []
