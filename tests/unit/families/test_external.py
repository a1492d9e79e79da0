"""Maps of another tool as a model: found by name, checked, digested."""

import numpy as np
import pytest
import torch
from made_files import write_tokens
from PIL import Image

from dinodp import store
from dinodp.datasets.manifest import image_row, make_manifest, manifest_digest, select
from dinodp.errors import InputError
from dinodp.families import model_options
from dinodp.families.stages import fit_model, load_model, open_split, score_split

SHAPE = (12, 16)


@pytest.fixture
def data(tmp_path):
    """Images of the same names in good and bad folders, their embeddings, and a map of each but an anomalous one."""
    generator, rows = np.random.default_rng(0), []
    plan = [("train", "good", 2), ("valid", "good", 2), ("valid", "bad", 1), ("test", "good", 2), ("test", "bad", 3)]
    for split, kind, count in plan:
        for index in range(count):
            path = tmp_path / f"data/{split}/{kind}/{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 255, SHAPE, dtype=np.uint8)).save(path)
            label = "anomalous" if kind == "bad" else "normal"
            rows.append(image_row(split, label, path, path if kind == "bad" else None))
            if (split, kind) != ("valid", "bad") and split != "train":
                place = tmp_path / f"maps/{split}/{kind}/{index:03d}.npy"
                place.parent.mkdir(parents=True, exist_ok=True)
                np.save(place, generator.random(SHAPE))
    manifest = make_manifest(rows)
    for split in ("train", "valid", "test"):
        write_tokens(tmp_path / f"{split}.h5", torch.rand(len(select(manifest, split)), 3, 4, 5).numpy(), manifest)
    return tmp_path, manifest


def score(data, split="test", **options):
    folder, manifest = data
    model = model_options({"family": "external", "maps": str(folder / "maps"), **options})
    train, source = (open_split(folder / f"{name}.h5", model, None, manifest, name) for name in ("train", split))
    fit_model(folder / "model.h5", model, train, train, seed=0, device="cpu")
    loaded = load_model(folder / "model.h5", model, train, device="cpu")
    made_from = {"manifest": manifest_digest(manifest)}
    score_split(loaded, source, select(manifest, split), folder / "scores.h5", made_from=made_from)
    return store.read_maps(folder / "scores.h5")["map"], store.read_inputs(folder / "scores.h5", "scores")


def names(data, split):
    return ["/".join(path.split("/")[-3:])[:-4] for path in select(data[1], split)["image"]]


def test_maps_are_those_of_the_images_by_name_and_folder(data):
    maps, made_from = score(data)
    for values, name in zip(maps, names(data, "test"), strict=True):
        np.testing.assert_array_equal(values, np.load(data[0] / f"maps/{name}.npy").astype(np.float32))
    assert set(made_from) == {"manifest", "maps"}
    np.save(data[0] / "maps/test/bad/001.npy", np.zeros(SHAPE))
    assert score(data)[1]["maps"] != made_from["maps"]


def test_an_anomalous_validation_image_needs_no_map(data):
    maps, _ = score(data, "valid")
    missing = [name for name, values in zip(names(data, "valid"), maps, strict=True) if not values.any()]
    assert missing == ["valid/bad/000"]


def test_maps_are_resized_on_demand_only(data, tmp_path):
    large = np.random.default_rng(1).random((24, 32))
    np.save(tmp_path / "maps/test/bad/001.npy", large)
    with pytest.raises(InputError, match=r"001.npy has 24 x 32 pixels, others have 12 x 16: set the model's size"):
        score(data)
    maps, _ = score(data, size=[6, 8])
    assert maps.shape == (5, 6, 8)
    index = names(data, "test").index("test/bad/001")
    by_pillow = Image.fromarray(large.astype(np.float32)).resize((8, 6), Image.Resampling.BILINEAR)  # over all pixels
    np.testing.assert_allclose(maps[index], np.asarray(by_pillow), rtol=1e-5)


def test_a_picture_in_nifti(data, tmp_path):
    import nibabel as nib

    path = tmp_path / "maps/test/bad/001.npy"
    values = np.load(path).astype(np.float32)
    nib.save(nib.Nifti1Image(values.T[:, :, None], np.eye(4)), path.with_suffix(".nii.gz"))
    path.unlink()
    maps, _ = score(data)
    np.testing.assert_array_equal(maps[names(data, "test").index("test/bad/001")], values)


def test_what_is_wrong_is_one_sentence(data, tmp_path):
    path = tmp_path / "maps/test/bad/001.npy"
    np.save(path, np.zeros((3, *SHAPE)))
    with pytest.raises(InputError, match=r"001.npy has slices: the pipeline needs one map per image"):
        score(data)
    path.unlink()
    for other in (tmp_path / "maps").glob("*/*/001.npy"):
        other.unlink()
    with pytest.raises(InputError, match=r"no map of the image .*bad/001.png \(test\): it would be called 001.npy"):
        score(data)
    for name in ("bad/001.npy", "test/001.npy"):
        (tmp_path / "maps" / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / "maps" / name, np.zeros(SHAPE))
    with pytest.raises(InputError, match=r"bad/001.npy and .*test/001.npy could both be the map of .*001.png"):
        score(data)
    with pytest.raises(InputError, match="There is no folder none of anomaly maps"):
        score(data, maps="none")
    with pytest.raises(InputError, match="background: the maps of another method are taken as they are: keep"):
        model_options({"family": "external", "maps": "m", "background": "leave_out"})
    with pytest.raises(InputError, match="maps: the key is missing"):
        model_options({"family": "external"})


def test_it_has_no_unit_length_and_no_seed():
    options = model_options({"family": "external", "maps": "~/m"})
    assert options.labels()["normalised"] == ""
    assert not options.is_random
    assert not options.maps.startswith("~")
    assert options.places() == [options.maps]
