"""What is said of scans that are used all the same: odd ones among the healthy, copies, other sizes."""

import numpy as np
import pandas as pd
import pytest
import torch
from scan_phantoms import FAST_FIT, WINDOW, head, healthy_folder, photo, save, save_photo

from dinodp.cli import main
from dinodp.scans.detecting.outlying import evenly, outlying


def fit(folder, model, *options):
    return main(["fit", str(folder), "--out", str(model), *FAST_FIT, *options])


def predict(new, model, out):
    return main(["predict", str(new), "--model", str(model), "--out", str(out)])


def test_a_diseased_scan_among_the_healthy_is_named(tmp_path, capsys):
    healthy_folder(tmp_path / "healthy", 7)
    assert fit(tmp_path / "healthy", tmp_path / "sound.h5", *WINDOW) == 0
    assert "far from all" not in capsys.readouterr().err
    save(tmp_path / "healthy/sick.nii.gz", head(9, lesion=True))
    assert fit(tmp_path / "healthy", tmp_path / "m.h5", *WINDOW) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "far from all other healthy scans" in line]
    assert len(said) == 1
    assert "sick is far from all other healthy scans" in said[0]
    assert "1 scan is far from all others** when left out" in (tmp_path / "m.card.md").read_text()
    assert "far from all others" not in (tmp_path / "sound.card.md").read_text()


def clouds(n, odd=(), dim=8):
    """Embeddings [200, dim] of n scans around one direction, and of the ``odd`` ones partly around another."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(n):
        tokens = torch.randn(200, dim, generator=generator) * 0.1 + torch.eye(dim)[0]
        if number in odd:
            tokens[:5] = torch.eye(dim)[1]
        found.append(tokens)
    return lambda number, count: evenly(found[number], count)


def test_who_is_compared_with_whom():
    names = [f"s{number}" for number in range(6)]
    assert outlying(names, names, clouds(6)) == []
    assert [item.name for item in outlying(names, names, clouds(6, odd=(4,)))] == ["s4"]
    twice = clouds(6, odd=(4, 5))  # two visits of one person
    assert outlying(names, names, twice) == []  # each explains the other
    found = outlying(names, ["a", "b", "c", "d", "e", "e"], twice)
    assert {item.name for item in found} == {"s4", "s5"}
    assert found[0].distance > 3 * found[0].median
    assert outlying(names[:3], names[:3], clouds(3, odd=(0,))) == []  # too few to tell


def test_copies_among_the_healthy_are_left_out_or_named(tmp_path, capsys):
    for seed in range(3):
        save_photo(tmp_path / f"healthy/{seed}.png", photo(seed))
    (tmp_path / "healthy/copy.png").write_bytes((tmp_path / "healthy/1.png").read_bytes())
    save_photo(tmp_path / "healthy/again.tif", photo(2))  # other bytes, the same pixels
    assert fit(tmp_path / "healthy", tmp_path / "m.h5") == 0
    said = capsys.readouterr().err
    assert "1 copy of another file left out (such as" in said
    assert "1 of the 4 healthy scans have the same voxels as another (such as" in said
    assert "only 3 are different" in said


def test_healthy_images_that_are_all_the_same_are_refused(tmp_path, capsys):
    for number in range(8):
        save_photo(tmp_path / f"healthy/{number}.png", photo(0))
    assert fit(tmp_path / "healthy", tmp_path / "m.h5") == 1
    said = capsys.readouterr().err
    assert "7 copies of another file left out" in said
    assert "There is one scan: at least two are needed" in said


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for seed in range(4):
        save_photo(folder / f"healthy/{seed}.png", photo(seed))
    assert fit(folder / "healthy", folder / "m.h5") == 0
    return folder


def test_an_image_of_another_size_is_said_to_be_one(images, tmp_path, capsys):
    save_photo(tmp_path / "new/same.png", photo(9))
    save_photo(tmp_path / "new/large.png", photo(9, size=(160, 224)))
    assert predict(tmp_path / "new", images / "m.h5", tmp_path / "out") == 0
    note = "it has 160 x 224 pixels, but the healthy images have 80 x 112 (height x width)"
    assert note in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "out/scans.csv").set_index("scan")
    assert table["status"].tolist() == ["scored", "scored"]
    assert note in table.loc["large", "message"]
    assert np.isnan(table.loc["same", "message"])
    assert note in (tmp_path / "out/gallery.html").read_text()


def test_healthy_images_of_several_sizes_are_said_to_be_so(tmp_path, capsys):
    for seed, size in enumerate([(80, 112), (90, 112), (80, 120)]):
        save_photo(tmp_path / f"healthy/{seed}.png", photo(seed, size=size))
    assert fit(tmp_path / "healthy", tmp_path / "m.h5") == 0
    assert "The healthy images have 80 to 90 x 112 to 120 pixels" in capsys.readouterr().err


def test_a_scan_of_the_fit_and_a_copy_are_named(images, tmp_path, capsys):
    save_photo(tmp_path / "new/a.tif", photo(2))
    save_photo(tmp_path / "new/b.png", photo(2))
    assert predict(tmp_path / "new", images / "m.h5", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "it is, voxel for voxel, one of the scans that the model was fitted or calibrated on" in said
    assert "b holds the same voxels as a." in said
