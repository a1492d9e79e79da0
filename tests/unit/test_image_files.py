"""Image files as people have them: what their header says is used, or a sentence names it."""

import struct

import numpy as np
import pytest
from PIL import Image

from dinodp.datasets.manifest import image_row, image_size
from dinodp.errors import InputError
from dinodp.images import decode_image, read_image, read_lesion, read_mask, read_values, read_window
from dinodp.jobs import logs

LESION = np.zeros((64, 96), dtype=bool)
LESION[10:30, 40:70] = True
ORIENTATION = 0x0112


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.setattr(logs, "_said", set())


def save(array, path, mode=None, **how):
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **how)
    return path


def tiff(path, rows, bits, photometric, packed):
    """A minimal uncompressed TIFF of one strip: grey [rows] of some bits."""
    height, width = len(rows), len(rows[0])
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, height),
            (279, len(packed))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    padded = packed + b"\0" * (len(packed) % 2)
    path.write_bytes(
        struct.pack("<2sHI", b"II", 42, 8 + len(padded)) + padded + struct.pack("<H", len(tags)) + entries + b"\0" * 4
    )
    return path


def turned_copies(picture, folder, suffix):
    """The same upright picture stored with each EXIF orientation."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    for orientation, transpose in back.items():
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        path = folder / f"{orientation}{suffix}"
        picture.transpose(transpose).save(path, exif=exif)
        yield path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_orientation_is_applied_to_images_masks_and_sizes(tmp_path, suffix, caplog):
    values = np.where(LESION, 255, 0).astype(np.uint8)
    for path in turned_copies(Image.fromarray(values), tmp_path, suffix):
        assert (read_image(path)[..., 0] == values).all()
        assert (read_values(path)[..., 0] == values).all()
        assert (read_lesion(path, "gt0") == LESION).all()
        assert image_size(path) == values.shape
    assert caplog.text.count("EXIF orientation") == (suffix == ".png")  # Pillow turns TIFF by itself


def test_a_photograph_and_the_mask_of_its_upright_picture_belong_together(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    upright = np.where(LESION, 200, 50).astype(np.uint8)
    photograph = tmp_path / "a.jpg"
    Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90).save(photograph, quality=95, exif=exif)
    mask = save(np.where(LESION, 255, 0).astype(np.uint8), tmp_path / "m.png")
    row = image_row("test", "anomalous", photograph, mask)
    assert (row["height"], row["width"]) == LESION.shape
    assert read_image(photograph)[LESION].mean() > 190


@pytest.mark.parametrize("shift", [0, 4, 8])
def test_bits_that_are_used_are_told_apart(tmp_path, shift):
    values = (np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)) >> shift
    found = decode_image(save(values, tmp_path / "a.png"))
    assert found.bits == 16
    assert found.brightest == pytest.approx((65535 >> shift) / 65535)
    window = read_window(tmp_path / "a.png", (0, 2 ** (16 - shift) - 1))
    assert window.max() == 255
    assert len(np.unique(window)) == 256


def test_a_window_clips(tmp_path):
    path = save(np.array([[0, 100, 150, 200, 4000]], dtype=np.uint16), tmp_path / "a.png")
    assert read_window(path, (100, 200)).tolist() == [[0, 0, 128, 255, 255]]


def test_a_window_takes_negative_and_floating_values(tmp_path):
    path = save(np.array([[-1000.0, 40.0, 240.0]], dtype=np.float32), tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"outside 0 to 1: convert it .* \(in the catalog: the key window\)"):
        read_image(path)
    assert read_window(path, (-160, 240)).tolist() == [[0, 128, 255]]


def test_twelve_bits_by_the_header_of_a_tiff(tmp_path):
    path = tiff(tmp_path / "a.tif", [[0, 4095]], 12, 1, bytes([0x00, 0x0F, 0xFF]))
    assert read_image(path)[0, :, 0].tolist() == [0, 255]
    assert decode_image(path).bits == 12


@pytest.mark.parametrize(("bits", "code"), [(8, "B"), (16, "H")])
def test_white_is_zero(tmp_path, bits, code):
    top = 2**bits - 1
    for photometric, expected in ((1, [0, 255, 51]), (0, [255, 0, 204])):
        packed = struct.pack(f"<3{code}", 0, top, top // 5)
        path = tiff(tmp_path / f"{photometric}.tif", [[0, top, top // 5]], bits, photometric, packed)
        assert read_image(path)[0, :, 0].tolist() == expected
        assert read_mask(path).tolist() == [expected]


def test_16_bit_colours_keep_their_upper_bits_and_say_so(tmp_path):
    """Pillow cannot write them: a PNG by hand."""
    import zlib

    rows = b"\0" + struct.pack(">6H", 4095, 2048, 0, 100, 200, 4000)
    chunks = [(b"IHDR", struct.pack(">2I5B", 2, 1, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    found = decode_image(tmp_path / "a.png")
    assert (found.bits, found.pixels.max()) == (16, 15)


def test_an_image_whose_content_is_in_its_alpha_is_refused(tmp_path):
    with pytest.raises(InputError, match="has one colour; what it shows is in its alpha channel: flatten it"):
        read_image(save(rgba(LESION, 0, LESION * 255), tmp_path / "a.png"))


def test_alpha_that_is_left_out_is_said_once(tmp_path, caplog):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 4), dtype=np.uint8)
    for name in ("a", "b"):
        assert (read_image(save(pixels, tmp_path / f"{name}.png")) == pixels[..., :3]).all()
    (record,) = caplog.records
    assert "is transparent in places; its alpha channel is left out" in record.getMessage()


def rgba(shape, colour, alpha):
    """A picture [H, W, 4] of one colour or of colours, and its alpha."""
    return np.dstack([np.broadcast_to(colour, (*shape.shape, 3)), np.broadcast_to(alpha, shape.shape)]).astype(np.uint8)


MASKS = {
    "alpha of a black picture": lambda shape: rgba(shape, 0, shape * 255),
    "alpha of a white picture": lambda shape: rgba(shape, 255, shape * 90),
    "red on transparent white": lambda shape: rgba(shape, np.where(shape[..., None], [255, 0, 0], 255), shape * 128),
    "opaque": lambda shape: rgba(shape, shape[..., None] * 255, 255),
}


@pytest.mark.parametrize("kind", MASKS)
def test_the_lesion_of_masks_with_alpha(tmp_path, kind):
    path = save(MASKS[kind](LESION), tmp_path / "m.png")
    assert (read_lesion(path, "gt0") == LESION).all()


@pytest.mark.parametrize("colour", [0, 255])
def test_an_empty_mask_among_those_in_alpha_is_empty(tmp_path, colour):
    assert not read_mask(save(rgba(LESION, colour, 0), tmp_path / "m.png")).any()


def test_colours_that_are_transparent_everywhere_count(tmp_path):
    path = save(rgba(LESION, LESION[..., None] * 255, 0), tmp_path / "m.png")
    assert (read_lesion(path, "gt0") == LESION).all()


def test_a_palette_with_a_transparent_background(tmp_path):
    picture = Image.fromarray(LESION.astype(np.uint8), mode="P")
    picture.putpalette([255, 255, 255, 255, 0, 0])
    picture.save(tmp_path / "m.png", transparency=0)
    assert (read_lesion(tmp_path / "m.png", "gt0") == LESION).all()


@pytest.mark.parametrize("quality", [40, 75, 90, 95])
@pytest.mark.parametrize("colour", [False, True])
def test_jpeg_masks_are_cut_at_half_with_a_word(tmp_path, caplog, quality, colour):
    values = np.where(LESION, 255, 0).astype(np.uint8)
    path = save(np.dstack([values] * 3) if colour else values, tmp_path / "m.jpg", quality=quality)
    assert (np.asarray(Image.open(path).convert("L")) > 0).sum() > LESION.sum()  # it rings
    assert (read_lesion(path, "gt0") == LESION).mean() > 0.995
    assert (read_lesion(path, "eq255") == read_lesion(path, "gt0")).all()
    assert "cut at 128" in caplog.text


def test_an_empty_jpeg_mask_is_empty(tmp_path):
    assert not read_mask(save(np.zeros((32, 32), np.uint8), tmp_path / "m.jpg")).any()


@pytest.mark.parametrize("values", [(0, 1), (0, 2, 3), (0, 58, 122)])
def test_labels_in_jpeg_are_refused(tmp_path, values):
    labels = np.random.default_rng(0).choice(np.uint8(values), (8, 12)).repeat(8, 0).repeat(8, 1)
    with pytest.raises(InputError, match=r"labels in a format that changes them \(JPEG\), or probabilities"):
        read_mask(save(labels, tmp_path / "m.jpg"))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_probabilities_are_refused(tmp_path, kind):
    chance = np.exp(-((np.mgrid[-4:4:64j, -4:4:64j] ** 2).sum(0)) / 4)
    top = {"uint8": 255, "uint16": 65535, "float32": 1}[kind]
    path = save((chance * top).astype(kind), tmp_path / ("m.tif" if kind == "float32" else "m.png"))
    with pytest.raises(InputError, match=r"or probabilities\. Save labels as PNG; of probabilities"):
        read_mask(path)


def test_soft_edges_of_a_png_are_cut_at_half(tmp_path, caplog):
    soft = Image.fromarray(LESION.astype(np.uint8) * 255).resize((480, 320), Image.Resampling.BICUBIC)
    soft.save(tmp_path / "m.png")
    truth = np.asarray(Image.fromarray(LESION).resize((480, 320), Image.Resampling.NEAREST))
    assert (read_lesion(tmp_path / "m.png", "gt0") == truth).mean() > 0.999
    assert "soft edges" in caplog.text


def test_numbered_lesions_and_classes_stay(tmp_path):
    numbered = np.arange(60, dtype=np.uint8).reshape(6, 10)
    assert (read_mask(save(numbered, tmp_path / "a.png")) == numbered).all()
    classes = np.uint8([[0, 10, 58, 122, 200, 255]])
    assert (read_mask(save(classes, tmp_path / "b.png")) == classes).all()


@pytest.mark.parametrize("channels", [3, 4])
def test_one_channel_per_class_is_refused(tmp_path, channels):
    one_hot = np.zeros((*LESION.shape, channels), dtype=np.uint8)
    one_hot[..., 0], one_hot[..., channels - 1 if channels == 4 else 1] = ~LESION * 255, LESION * 255
    with pytest.raises(InputError, match=r"has one channel per class \(one-hot\): save the lesion's channel alone"):
        read_mask(save(one_hot, tmp_path / "m.png"))


def test_colours_on_black_are_no_one_hot(tmp_path):
    colours = np.zeros((*LESION.shape, 3), dtype=np.uint8)
    colours[LESION, 0] = 255
    colours[50:60, :20, 1] = 255
    assert (read_lesion(save(colours, tmp_path / "m.png"), "gt0") == colours.any(axis=2)).all()


def test_the_first_picture_of_a_photograph_with_previews(tmp_path):
    pictures = [Image.fromarray(np.full((32, 32, 3), value, np.uint8)) for value in (200, 10)]
    pictures[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=pictures[1:])
    assert abs(int(read_image(tmp_path / "a.jpg").mean()) - 200) < 3
