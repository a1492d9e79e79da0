"""Reading and preparing images, checked by hand on tiny files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dinodp.backbones.preprocessing import crop_to_multiple, preprocess, resize_short_side, to_tensor
from dinodp.errors import InputError
from dinodp.images import anomalous_in, read_image, read_lesion, read_mask, read_mask_at

GREY = np.array([[0, 10], [128, 255], [3, 4]], dtype=np.uint8)


def save(array: np.ndarray, path: Path, mode: str | None = None) -> Path:
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_grey_becomes_three_equal_channels(tmp_path: Path, suffix: str) -> None:
    image = read_image(save(GREY, tmp_path / f"a.{suffix}"))
    assert image.shape == (3, 2, 3)
    assert image.dtype == np.uint8
    assert all((image[..., channel] == GREY).all() for channel in range(3))


def test_jpeg_is_read_as_rgb(tmp_path: Path) -> None:
    assert (read_image(save(np.full((8, 8, 3), 100, np.uint8), tmp_path / "a.jpg")) == 100).all()


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    rgba = np.array([[[10, 20, 30, 0], [40, 50, 60, 255]]], dtype=np.uint8)
    path = save(rgba, tmp_path / "a.png")
    assert (read_image(path) == rgba[..., :3]).all()
    assert read_mask(path).tolist() == [[0, 48]]  # luma; what is transparent is no lesion


def test_palette_is_converted(tmp_path: Path) -> None:
    rgb = np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)
    assert (read_image(save(rgb, tmp_path / "a.png", "P")) == rgb).all()
    assert read_mask(tmp_path / "a.png").tolist() == [[76, 29]]


def test_faint_colours_stay_above_zero(tmp_path: Path) -> None:
    assert read_mask(save(np.array([[[0, 0, 1], [0, 0, 0]]], np.uint8), tmp_path / "a.png")).tolist() == [[1, 0]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_is_scaled_by_its_full_range(tmp_path: Path, suffix: str) -> None:
    path = save(np.array([[0, 257, 65535, 25700]], dtype=np.uint16), tmp_path / f"a.{suffix}")
    assert read_image(path)[..., 0].tolist() == [[0, 1, 255, 100]]
    assert read_mask(path).tolist() == [[0, 1, 255, 100]]


def test_floating_point_in_unit_range(tmp_path: Path) -> None:
    path = save(np.array([[0.0, 0.2, 1.0]], dtype=np.float32), tmp_path / "a.tif")
    assert read_image(path)[..., 1].tolist() == [[0, 51, 255]]


@pytest.mark.parametrize(("value", "words"), [(np.nan, "not finite"), (np.inf, "not finite"), (7.0, "outside 0 to 1")])
def test_floating_point_is_refused(tmp_path: Path, value: float, words: str) -> None:
    path = save(np.array([[0.0, value]], dtype=np.float32), tmp_path / "a.tif")
    for read in (read_image, read_mask):
        with pytest.raises(InputError, match=words) as error:
            read(path)
        assert str(path) in str(error.value)


def test_masks_keep_their_values(tmp_path: Path) -> None:
    assert (read_mask(save(GREY, tmp_path / "grey.png")) == GREY).all()
    assert read_mask(save(np.array([[0, 255]], np.uint8), tmp_path / "bit.png", "1")).tolist() == [[0, 255]]
    labels = np.array([[0, 1, 255]], dtype=np.uint16)
    assert read_mask(save(labels, tmp_path / "labels.png")).tolist() == [[0, 1, 255]]
    faint = np.array([[0, 1, 65535]], dtype=np.uint16)
    assert read_mask(save(faint, tmp_path / "faint.png")).tolist() == [[0, 1, 255]]


@pytest.mark.parametrize("kind", ["LA", "P", "RGBA", "L"])
def test_nine_pixels_are_lesion_however_the_png_stores_them(tmp_path: Path, kind: str) -> None:
    """Opaque alpha, and a palette whose colour 0 is not black, are no lesion."""
    grey = np.zeros((8, 8), dtype=np.uint8)
    grey[2:5, 3:6] = 255
    picture = Image.fromarray(grey)
    if kind == "P":
        picture = Image.fromarray((grey == 0).astype(np.uint8) + 2, mode="P")
        picture.putpalette([1, 1, 1, 9, 9, 9, 255, 255, 255, 0, 0, 0])
    else:
        picture = picture.convert(kind)
    picture.save(tmp_path / "m.png")
    for rule in ("gt0", "eq255"):
        lesion = read_lesion(tmp_path / "m.png", rule)
        assert (lesion == (grey > 0)).all()
        assert lesion.sum() == 9


def test_the_rules_of_masks(tmp_path: Path) -> None:
    values = np.array([[0, 58, 122, 255]], dtype=np.uint8)
    path = save(values, tmp_path / "m.png")
    assert read_lesion(path, "gt0").tolist() == [[False, True, True, True]]
    assert read_lesion(path, "eq255").tolist() == [[False, False, False, True]]
    assert read_lesion(path, "eq255", (2, 8)).tolist() == [6 * [False] + 2 * [True]] * 2
    assert anomalous_in(values > 0, "gt0").tolist() == [[False, True, True, True]]
    with pytest.raises(InputError, match="Unknown mask rule 'gt1': choose one of eq255, gt0"):
        read_lesion(path, "gt1")


def test_no_mask_is_a_mask_of_nothing() -> None:
    assert read_mask_at("", (2, 3)).tolist() == [[0, 0, 0]] * 2
    assert not read_lesion("", "gt0", (2, 3)).any()


def test_damaged_files_are_told_in_one_sentence(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = save(noise, tmp_path / "whole.png").read_bytes()
    files = {"empty.png": b"", "text.png": b"no image", "short.png": whole[: len(whole) // 2]}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in ("missing.png", *files):
        with pytest.raises(InputError) as error:
            read_image(tmp_path / name)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_several_images_in_one_file_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY), Image.fromarray(GREY)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="holds 2 images"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resize_short_side_is_pillows(interpolation: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 50, 3), dtype=np.uint8)
    resized = resize_short_side(image, 7, interpolation)
    assert resized.shape == (7, 17, 3)  # 17.5 rounded down, as torchvision does
    expected = Image.fromarray(image).resize((17, 7), Image.Resampling[interpolation.upper()])
    assert (resized == np.asarray(expected)).all()
    assert resize_short_side(image.transpose(1, 0, 2), 40, interpolation).shape == (100, 40, 3)


def test_a_square_is_resized_by_the_same_interpolation() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 50, 3), dtype=np.uint8)
    found = preprocess(image, 28, 14, (0, 0, 0), (1, 1, 1), square=True, interpolation="bilinear")
    expected = np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(found.numpy(), np.moveaxis(expected, 2, 0) / np.float32(255), rtol=1e-6)
    assert not torch.equal(found, preprocess(image, 28, 14, (0, 0, 0), (1, 1, 1), square=True))


def test_crop_keeps_the_top_left_corner() -> None:
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    assert (crop_to_multiple(image, 2) == image[:4, :6]).all()
    with pytest.raises(InputError, match="smaller than a patch"):
        crop_to_multiple(image, 6)


def test_to_tensor_by_hand() -> None:
    tensor = to_tensor(np.array([[[255, 0, 51]]], dtype=np.uint8), (0.5, 0.5, 0.1), (0.5, 0.25, 0.1))
    assert tensor.dtype == torch.float32
    assert torch.allclose(tensor.flatten(), torch.tensor([1.0, -2.0, 1.0]))


def test_preprocess_shapes() -> None:
    image = np.zeros((30, 61, 3), dtype=np.uint8)
    zero, one = (0.0,) * 3, (1.0,) * 3
    assert preprocess(image, 45, 14, zero, one).shape == (3, 42, 84)
    assert preprocess(image, 45, 14, zero, one, square=True).shape == (3, 42, 42)
    assert preprocess(image, 45, 14, zero, one).is_contiguous()


@pytest.mark.parametrize("side", [20, 60, 240])
def test_three_equal_channels_give_the_bits_of_the_long_way(side: int) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (side, 50), dtype=np.uint8)
    image = np.repeat(grey[:, :, None], 3, axis=2)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    long_way = to_tensor(crop_to_multiple(resize_short_side(image, 70), 14), mean, std)
    assert torch.equal(preprocess(image, 70, 14, mean, std), long_way)
    image[-1, -1, 2] ^= 255  # hardly a colour image, but one
    long_way = to_tensor(crop_to_multiple(resize_short_side(image, 70), 14), mean, std)
    assert torch.equal(preprocess(image, 70, 14, mean, std), long_way)
