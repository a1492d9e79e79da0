"""Archives from a real HTTP server on loopback: broken connections, checksums, full disks, hostile archives."""

import hashlib
import io
import random
import re
import resource
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dinodp.datasets import archives
from dinodp.errors import InputError
from dinodp.options.archive import ArchiveOptions

CONTENT = random.Random(0).randbytes(300_000)


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.content``; drops the connection after each number of bytes in ``server.breaks``."""

    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        if self.path != "/file.zip":
            self.send_error(404)
            return
        start, resumed = 0, re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if resumed and server.resumable and self.headers.get("If-Range") == server.etag:
            start = int(resumed[1])
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", server.etag)
        self.end_headers()
        stop = server.breaks.pop(0) if server.breaks else len(body)
        self.wfile.write(body[:stop])
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.content, http.breaks, http.ranges, http.resumable, http.etag = CONTENT, [], [], True, '"one"'
        http.url = f"http://127.0.0.1:{http.server_port}/file.zip"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield http
        http.shutdown()


def download(server, path, **options):
    archives.download(server.url, path, wait_seconds=0, **options)


@pytest.mark.parametrize("seed", range(4))
def test_a_broken_download_is_resumed(server, tmp_path, seed):
    server.breaks = [random.Random(seed).randrange(1, 250_000), 1000]
    download(server, tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert len(server.ranges) == 3
    assert server.ranges[1] is not None
    assert [path.name for path in tmp_path.iterdir()] == ["file.zip"]


def test_a_later_run_continues(server, tmp_path):
    server.breaks = [100_000]
    with pytest.raises(InputError, match=r"could not be downloaded in 1 attempts .*; 100000 bytes are kept: run again"):
        download(server, tmp_path / "file.zip", attempts=1)
    assert not (tmp_path / "file.zip").exists()
    download(server, tmp_path / "file.zip")
    assert server.ranges == [None, "bytes=100000-"]
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_another_version_on_the_server_starts_again(server, tmp_path):
    server.breaks = [100_000]
    with pytest.raises(InputError):
        download(server, tmp_path / "file.zip", attempts=1)
    server.etag, server.content = '"two"', CONTENT[::-1]
    download(server, tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT[::-1]


def test_a_server_that_cannot_resume(server, tmp_path):
    server.breaks, server.resumable = [100_000], False
    download(server, tmp_path / "file.zip")
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_refusals_of_the_server_are_said(server, tmp_path):
    with pytest.raises(InputError, match=r"answered 404 \(Not Found\): check the address"):
        archives.download(server.url.replace("file", "other"), tmp_path / "file.zip")
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match=r"could not be downloaded in 2 attempts .*refused"):
        download(server, tmp_path / "file.zip", attempts=2)


def test_disk_space_is_checked_before(server, tmp_path, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: archives.shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(InputError, match=r"has 0.00 GiB left, but downloading .* needs 0.00 GiB more"):
        download(server, tmp_path / "file.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing_that_looks_done(server, tmp_path):
    """The limit on file sizes makes the write fail as a full disk does."""
    code = (
        "import sys, pathlib; from dinodp.datasets import archives; from dinodp.errors import InputError\n"
        "try: archives.download(sys.argv[1], pathlib.Path(sys.argv[2]), attempts=1)\n"
        "except InputError as error: print(error)"
    )
    command = [sys.executable, "-c", code, server.url, str(tmp_path / "file.zip")]

    def limit():
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    result = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=limit)
    assert re.search(r"file.zip.part could not be written \(.*File too large\); free some space", result.stdout)
    assert not (tmp_path / "file.zip").exists()


def zipped(members, **options):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def linked_tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return buffer.getvalue()


def damaged():
    content = bytearray(zipped({"a/b.png": CONTENT}))
    content[1000] ^= 255
    return bytes(content)


HOSTILE = {
    "leaves the folder": (lambda: zipped({"../evil.txt": b"x"}), "holds the member '../evil.txt', which would leave"),
    "absolute": (lambda: zipped({"/tmp/evil.txt": b"x"}), "holds the member '/tmp/evil.txt', which would leave"),
    "backslashes": (lambda: zipped({"a\\..\\..\\evil.txt": b"x"}), "which would leave the target folder"),
    "bomb": (lambda: zipped({"zeros": bytes(10**7)}), "would grow from .* to 10000000 bytes, more than 200-fold"),
    "link": (linked_tar, "holds links or special files"),
    "damaged": (damaged, "could not be unpacked"),
    "cut off": (lambda: zipped({"a": CONTENT})[:5000], "neither a zip nor a tar archive, or it is cut off"),
    "no archive": (lambda: b"<html>please log in</html>", "neither a zip nor a tar archive"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_or_damaged_archive_leaves_nothing(tmp_path, kind):
    make, sentence = HOSTILE[kind]
    (tmp_path / "packed").write_bytes(make())
    with pytest.raises(InputError, match=sentence):
        archives.unpack(tmp_path / "packed", tmp_path / "sub" / "folder")
    assert list((tmp_path / "sub").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packed", "sub"]


def entry(server, tmp_path, **change):
    content = zipped({"Brain/train/good/1.png": CONTENT})
    server.content = content
    sha256 = hashlib.sha256(content).hexdigest()
    plain = {"url": server.url, "file": str(tmp_path / "bmad.zip"), "sha256": sha256, **change}
    return ArchiveOptions.read(plain, "archives.bmad")


def test_from_address_to_folder(server, tmp_path):
    folder = archives.fetch_archive("bmad", entry(server, tmp_path), tmp_path / "bmad")
    assert (folder / "Brain/train/good/1.png").read_bytes() == CONTENT
    archives.fetch_archive("bmad", entry(server, tmp_path), tmp_path / "bmad")
    assert len(server.ranges) == 1  # the packed file is not fetched again


def test_nothing_is_fetched_before_its_licence_is_accepted(server, tmp_path, caplog):
    licence = "Research use only."
    with pytest.raises(InputError) as told:
        archives.fetch_archive("bmad", entry(server, tmp_path, licence=licence), tmp_path / "bmad")
    assert str(told.value) == (
        f"Archive bmad: Research use only. To fetch {server.url} under these terms set archives.bmad.accept_licence: "
        f"true, or put your own copy at {tmp_path}/bmad.zip."
    )
    assert not server.ranges
    with caplog.at_level("INFO", "dinodp"):
        accepted = entry(server, tmp_path, licence=licence, accept_licence=True)
        assert archives.fetch_archive("bmad", accepted, tmp_path / "bmad").is_dir()
    assert "Research use only." in caplog.text


def test_a_wrong_checksum_stops_before_unpacking(server, tmp_path):
    with pytest.raises(InputError, match=r"bmad.zip has sha256 .*, expected 0000"):
        archives.fetch_archive("bmad", entry(server, tmp_path, sha256="0" * 64), tmp_path / "bmad")
    assert not (tmp_path / "bmad").exists()


def test_what_needs_a_browser_is_explained_then_verified(server, tmp_path):
    options = entry(server, tmp_path, url=None, instructions="Download the zip from the drive folder (research use).")
    with pytest.raises(InputError, match=r"Archive bmad: Download the zip .* Then put it at .*bmad.zip and run again"):
        archives.fetch_archive("bmad", options, tmp_path / "bmad")
    (tmp_path / "bmad.zip").write_bytes(server.content)
    assert archives.fetch_archive("bmad", options, tmp_path / "bmad").is_dir()


def test_tar_archives_too(tmp_path):
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("RESC/a.png")
        member.size = len(CONTENT)
        archive.addfile(member, io.BytesIO(CONTENT))
    archives.unpack(tmp_path / "packed.tar.gz", tmp_path / "folder")
    assert (tmp_path / "folder/RESC/a.png").read_bytes() == CONTENT
