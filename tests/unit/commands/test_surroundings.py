"""`dinodp` in real processes: several at once, full disks, other users' folders, names that were chosen to do harm."""

import csv
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from scan_phantoms import photo, save_photo

from dinodp.cli import main
from dinodp.errors import visible
from dinodp.scans.writing.summary import cell

FIT = ["--backbone", "classical", "--resolution", "112", "--method", "k_means", "components=8", "epochs=1"]
NOBODY = 65534
AS_OTHERS = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]  # root without its power over files
HOSTILE = [
    b"=cmd|' !A0.png", b"+1.png", b"-2.png", b"@sum.png", b"a\nb.png", b"a\rb.png", b"a\tb.png", b"\x1b[31mred.png",
    "abc\u202egnp.png".encode(), "\u2066x.png".encode(), b"latin-\xe9.png", "größe.png".encode(), b"<b>&amp;.png",
]  # fmt: skip


def start(*arguments, **options):
    environment = {**os.environ, **options.pop("env", {})}
    command = [*options.pop("before", []), sys.executable, "-m", "dinodp.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **options)


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err.decode("utf-8", "replace")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    for seed in range(4):
        save_photo(folder / f"healthy/{seed}.png", photo(seed))
    save_photo(folder / "new/a.png", photo(9, spot=True))
    assert main(["fit", str(folder / "healthy"), "--out", str(folder / "m.h5"), *FIT]) == 0
    return folder


def outcomes(processes):
    """The number that won; the others said so in one sentence."""
    done = [finish(process) for process in processes]
    for status, _, err in done:
        if status:
            said = err.strip().splitlines()[-1]
            assert status == 1
            assert "is being written by another process" in said or "exists already" in said
            assert "Traceback" not in err
    return sum(status == 0 for status, _, _ in done)


def test_of_several_fits_into_one_file_one_wins_whole(world, tmp_path):
    alone = (world / "m.h5").read_bytes()
    target = tmp_path / "m.h5"
    assert outcomes([start("fit", world / "healthy", "--out", target, *FIT) for _ in range(4)]) == 1
    assert target.read_bytes() == alone
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.card.md", "m.h5"]


def test_of_several_predicts_into_one_folder_one_wins_whole(world, tmp_path):
    def predict(out):
        return start("predict", world / "new", "--model", world / "m.h5", "--out", out, "--masks")

    assert finish(predict(tmp_path / "alone"))[0] == 0
    assert outcomes([predict(tmp_path / "out") for _ in range(4)]) == 1
    written = {path.relative_to(tmp_path / "out"): path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {Path("scans.csv"), Path("maps/a.tiff"), Path("masks/a.png"), Path("gallery.html")} < set(written)
    assert not [name for name in written if name.name.startswith((".", "part"))]
    for name, path in written.items():
        assert path.read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 160 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts")
def test_a_full_disk_is_a_sentence_with_what_is_free(world, small_disk, capfd):
    save_photo(world / "large/a.png", photo(3, size=(400, 400)))
    (small_disk / "fill").write_bytes(bytes(120_000))
    commands = {
        "m.h5": ["fit", world / "healthy", "--out", small_disk / "m.h5", *FIT[:4],
                                                  "--method", "memory_bank", "max_embeddings=264"],
        "a.tiff": ["predict", world / "large", "--model", world / "m.h5", "--out",
                                                small_disk / "out"],
    }  # fmt: skip
    for sentence, command in commands.items():
        assert main(list(map(str, command))) == 1
        captured = capfd.readouterr()
        said = captured.out + captured.err
        expected = rf"{sentence} cannot be written: the disk or the quota is full; [\d.]+ MiB are free"
        assert re.search(expected, said), said
        assert "Traceback" not in said
    assert not list(small_disk.glob("*.h5"))
    assert not list(small_disk.glob("out/maps/*"))


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="only root can give up that power")
def test_another_users_folder_is_a_sentence_with_whose_it_is(world, tmp_path):
    (tmp_path / "mine").mkdir()
    shutil.copy(world / "new/a.png", tmp_path / "secret.png")
    (tmp_path / "secret.png").chmod(0o600)
    for name in ("mine", "secret.png"):
        os.chown(tmp_path / name, NOBODY, NOBODY)
    command = ["predict", world / "new", "--model", world / "m.h5", "--out", tmp_path / "mine/earlier"]
    assert finish(start(*command))[0] == 0
    for path in (tmp_path / "mine").rglob("*"):
        os.chown(path, NOBODY, NOBODY)
    masks = ["--masks", world / "healthy", "--without-mask", "skip"]
    cases = [
        (["fit", world / "healthy", "--out", tmp_path / "mine/m.h5", *FIT], "Nothing can be written into .*mine"),
        (["predict", world / "new", "--model", world / "m.h5", "--out", tmp_path / "mine/x"], "Nothing can be written"),
        ([*command, "--overwrite"], "Nothing can be written into .*earlier"),
        (["evaluate", tmp_path / "mine/earlier", *masks, "--out", tmp_path / "mine/m.csv"], "Nothing can be written"),
        (["export", world / "m.h5", "--onnx", tmp_path / "mine/m.onnx"], "Nothing can be written into .*mine"),
        (["predict", tmp_path / "secret.png", "--model", world / "m.h5", "--out", tmp_path / "x"], "secret.png"),
    ]
    for command, sentence in cases:
        status, out, err = finish(start(*command, before=AS_OTHERS))
        said = out.decode() + err
        assert status == 1
        whose = "" if command[1] == tmp_path / "secret.png" else rf"; .* belongs to (nobody|the user {NOBODY})"
        assert re.search(rf"{sentence}.*Permission denied{whose}", said), said
        assert "Traceback" not in said


@pytest.fixture(scope="module")
def hostile(world):
    """Scans whose names were chosen to do harm."""
    folder = world / "hostile"
    folder.mkdir()
    content = (world / "new/a.png").read_bytes()
    for name in HOSTILE:
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(content)  # noqa: PTH118
    Path(os.fsdecode(os.fsencode(folder) + b"/=broken\x1b\xff.png")).write_bytes(b"x")
    return folder


def is_harmless(text):
    return not [letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Cs") and letter != "\n"]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_names_do_no_harm(hostile, world, tmp_path, encoding):
    command = ["predict", hostile, "--model", world / "m.h5", "--out", tmp_path / "out", "--masks", "--overlays"]
    status, out, err = finish(start(*command, env={"PYTHONIOENCODING": encoding}))
    assert status == 1
    assert out.decode(encoding).startswith(f"{len(HOSTILE)} of {len(HOSTILE) + 1} scans scored")
    assert "=broken\\x1b\\xff.png cannot be read" in out.decode(encoding)
    for text in (out.decode(encoding), err, *(
        (tmp_path / "out" / name).read_text("utf-8") for name in ("scans.csv", "regions.csv", "gallery.html")
    )):  # fmt: skip
        assert is_harmless(text)
        assert "Traceback" not in text
    with (tmp_path / "out/scans.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(HOSTILE) + 1
    names = [row["scan"] for row in rows]
    assert {"'=cmd|' !A0", "'+1", "'-2", "'@sum", "a\\nb", "a\\rb", "a\\tb", "\\x1b[31mred", "latin-\\xe9", "größe",
            "abc\\u202egnp", "\\u2066x", "<b>&amp;"} < set(names)  # fmt: skip
    assert not [value for row in rows for value in (row["scan"], row["file"], row["message"]) if value[:1] in "=+@\t\r"
                and value]  # fmt: skip
    assert len(list((tmp_path / "out/maps").iterdir())) == len(HOSTILE)


def test_hostile_names_are_evaluated(hostile, world, tmp_path):
    out = tmp_path / "out"
    assert finish(start("predict", hostile, "--model", world / "m.h5", "--out", out))[0] == 1
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in hostile.iterdir():
        spot = photo(9, spot=True) > photo(9)
        save_photo(masks / path.name, spot.astype("uint8") * 255)
    done = start("evaluate", out, "--masks", masks, "--out", tmp_path / "m.csv", env={"PYTHONIOENCODING": "ascii"})
    status, text, err = finish(done)
    assert status == 0, err
    assert text.isascii()
    assert "pixel_auroc" in (tmp_path / "m.csv").read_text()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain ü 漢", "plain ü 漢"), ("a\x00\x7f", "a\\x00\\x7f"), ("\u2028", "\\u2028"), ("\udce9", "\\xe9"), ("", "")],
)
def test_what_cannot_be_seen_is_an_escape(text, shown):
    assert visible(text) == shown


def test_a_cell_is_no_formula():
    for start_of in "=+-@＝＋－＠":
        assert cell(f"{start_of}1") == f"'{start_of}1"
    assert cell("\t=1") == "\\t=1"
    assert cell("a=1") == "a=1"


def test_a_defect_is_a_sentence_that_says_where_its_traceback_is(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("dinodp.scans.reading.folder.find_all", lambda *_, **__: {}["gone"])
    command = ["predict", str(world / "new"), "--model", str(world / "m.h5"), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    said = capsys.readouterr().err
    found = re.fullmatch(r"dinodp: a defect of dinodp \(KeyError: 'gone'\), please report it: .* is in (\S+)\.\n", said)
    assert "Traceback (most recent call last)" in Path(found[1]).read_text()
    with pytest.raises(KeyError):
        main(["--debug", *command])


def test_memory_of_a_gpu_that_does_not_suffice_is_one_sentence(world, tmp_path, monkeypatch, capsys):
    def find_all(*_, **__):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr("dinodp.scans.reading.folder.find_all", find_all)
    command = ["predict", str(world / "new"), "--model", str(world / "m.h5"), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"dinodp: The memory of the GPU does not suffice \(CUDA error: out of memory\): .*\.\n", said)


def test_an_unexpected_error_of_a_reader_names_the_file(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dinodp.scans.reading.folder.read_values", lambda path: [][1])
    command = ["predict", str(world / "new"), "--model", str(world / "m.h5"), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    said = capsys.readouterr()
    found = re.search(r"a\.png is damaged, or of a kind .* \(IndexError: .*\); the traceback is in (\S+)\.\n", said.out)
    assert "IndexError" in Path(found[1]).read_text()
    assert "Traceback" not in said.out + said.err
