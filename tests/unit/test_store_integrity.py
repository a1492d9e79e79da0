"""HDF5 results that were damaged, exchanged or made by others are refused by name."""

import h5py
import numpy as np
import pytest
from made_files import flip

from dinodp import store
from dinodp.errors import InputError
from dinodp.jobs.origin import sha256


@pytest.fixture
def scores(tmp_path):
    path = tmp_path / "scores.h5"
    maps = np.random.default_rng(0).random((3, 4, 4)).astype(np.float32)
    store.write_maps(path, {"scores": ["cosine"]}, {"cosine": maps}, {"cosine": maps[:, 0, 0]}, {"model": "12"})
    return path


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "train.h5"
    with store.writing(path, "embeddings", {"resolution": 448}, {"manifest": "12"}) as file:
        file.create_dataset("tokens", data=np.random.default_rng(0).random((5, 4, 4, 6)).astype(np.float16))
    return path


def test_a_file_names_what_it_was_made_from_and_its_digest(scores):
    assert store.read_inputs(scores, "scores") == {"model": "12"}
    assert store.digest_of(scores) == sha256(scores.read_bytes()[store.HEAD_BYTES :])
    with h5py.File(scores) as file:  # everybody's HDF5 reads it
        assert file["cosine"].shape == (3, 4, 4)


def test_no_flipped_bit_of_scores_is_read(scores):
    whole = scores.read_bytes()
    for place in range(0, len(whole), 97):
        flip(scores, place, place % 8)
        with pytest.raises(InputError, match=r"scores\.h5 "):
            store.read_maps(scores)
        scores.write_bytes(whole)


@pytest.mark.parametrize("start", [0, 512, 2048, -512])
def test_zeroed_bytes_are_not_read(scores, start):
    content = bytearray(scores.read_bytes())
    end = start + 512 or len(content)
    content[start:end] = bytes(len(content[start:end]))
    scores.write_bytes(content)
    with pytest.raises(InputError, match=r"scores\.h5 is not .*delete it and run again"):
        store.read_maps(scores)


@pytest.mark.parametrize("length", [0, 1, 511, 512, 600, -1])
def test_a_cut_file_is_not_read(scores, length):
    scores.write_bytes(scores.read_bytes()[:length])
    with pytest.raises(InputError, match=r"scores\.h5 is not .*delete it and run again"):
        store.read_maps(scores)


def test_a_file_of_format_1_or_of_another_program_is_refused(tmp_path):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "scores", 1
    with pytest.raises(InputError, match=r"old\.h5 has format version 1 or is of another program; .* format version 2"):
        store.read_maps(tmp_path / "old.h5")


def test_scores_of_two_numbers_of_images_are_refused(tmp_path):
    path = tmp_path / "s.h5"
    store.write_maps(path, {}, {"cosine": np.ones((3, 2, 2), np.float32)}, {"cosine": np.ones(2, np.float32)})
    with pytest.raises(InputError, match="are of different numbers of images"):
        store.n_scored(path)


def test_damage_of_embeddings_is_found_when_opened_or_names_the_file(tokens):
    """What is not an image's own bytes: attributes, shape, digests and the structure of the file."""
    whole, said = tokens.read_bytes(), []
    with store.reading(tokens, "embeddings") as file:
        expected = file["tokens"][()]
    for place in range(0, len(whole), 41):
        flip(tokens, place, place % 8)
        try:
            with store.reading(tokens, "embeddings") as file, store.hdf5_errors(tokens):
                digests, found = store.image_digests(file), file["tokens"][()]
        except InputError as error:
            said.append(str(error))
        else:
            for image, digest, stored in zip(found, digests, expected, strict=True):
                assert store.image_digest(image) != digest.tobytes() or (image == stored).all()
        tokens.write_bytes(whole)
    assert said
    assert all("train.h5" in sentence for sentence in said)
