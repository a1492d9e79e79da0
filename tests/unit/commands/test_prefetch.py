"""`dinodp prefetch` from a real HTTP server on loopback that answers as hub and as archive."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from dinodp import store

ROOT = Path(__file__).parents[3]
PARITY = ROOT / "tests/data/hub_parity_square_448"
DIGEST = hashlib.sha256((PARITY / "model.safetensors").read_bytes()).hexdigest()
COMMIT = "a" * 40
ARCHIVE = bytes(range(256)) * 4000


class Handler(BaseHTTPRequestHandler):
    """A hub with one repository, and an archive; ``server.breaks``: after how many bytes the next answer ends."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.command, self.path))
        if self.path.startswith("/api/models/some/net/"):
            listing = self.server.listing() if "/tree/" in self.path else {"id": "some/net", "sha": COMMIT}
            self.answer(json.dumps(listing).encode(), {"Content-Type": "application/json"})
        elif self.path.startswith(f"/some/net/resolve/{COMMIT}/"):
            body = self.server.files.get(self.path.rpartition("/")[2])
            self.send_error(404) if body is None else self.answer(body, {"X-Repo-Commit": COMMIT})
        elif self.path == "/data.zip":
            self.answer(ARCHIVE, {})
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def answer(self, body, headers):
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        tag = hashlib.sha256(body).hexdigest()
        headers = {"Content-Length": str(len(body) - start), "ETag": f'"{tag}"', "Accept-Ranges": "bytes", **headers}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            stop = self.server.breaks.pop(0) if self.path == "/data.zip" and self.server.breaks else len(body)
            self.wfile.write(body[start : start + stop])
            self.close_connection = True

    def log_message(self, *arguments):
        pass


class Hub(ThreadingHTTPServer):
    def listing(self):
        return [
            {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
            for name, body in self.files.items()
        ]


@pytest.fixture
def hub():
    with Hub(("127.0.0.1", 0), Handler) as server:
        server.asked, server.breaks = [], []
        server.files = {path.name: path.read_bytes() for path in PARITY.iterdir() if path.is_file()}
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def dinodp(folder, hub, *arguments, **variables):
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key}
    environment = {**inherited, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    environment |= {"PYTHONPATH": str(ROOT / "scripts"), "HF_HOME": str(folder / "own"), **variables}
    command = [sys.executable, "-m", "dinodp.cli", *map(str, arguments)]
    options = {"capture_output": True, "text": True, "timeout": 300, "check": False}
    done = subprocess.run(command, cwd=folder, env=environment, **options)
    return done.returncode, done.stdout + done.stderr


def configuration(folder, hub, **archive):
    digest = hashlib.sha256(ARCHIVE).hexdigest()
    entry = {"url": f"{hub.url}/data.zip", "sha256": digest, "file": "data/packed/data.zip"}
    small = {"title": "T", "note": "N", "datasets": ["mine"], "embeddings": ["net"], "models": ["memory_bank"]}
    config = {
        "archives": {"mine": {**entry, **archive}},
        "datasets": {"mine": {"source": "bmad", "root": "data/mine", "archive": {"name": "mine", "member": "M"}}},
        "embeddings": {"net": {"backbone": "some/net", "revision": COMMIT, "resolution": 28}},
        "run": small,
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))
    return folder / "mine.yaml"


def test_what_a_run_needs_comes_into_one_folder_that_works_without_a_network(tmp_path, hub):
    path = configuration(tmp_path, hub)
    status, text = dinodp(tmp_path, hub, "prefetch", path, "--to", "carried", "--check")
    assert (status, text.count("missing: ")) == (1, 2)
    assert hub.asked == []
    status, text = dinodp(tmp_path, hub, "prefetch", path, "--to", "carried")
    assert status == 0, text
    assert text.index("1.0 MiB") < text.index("fetched: archive mine") < text.index("fetched: some/net, revision aaa")
    assert (tmp_path / "carried/data/packed/data.zip").read_bytes() == ARCHIVE
    assert not (tmp_path / "own").exists()
    shutil.copytree(tmp_path / "carried", tmp_path / "elsewhere", symlinks=True)
    hub.asked.clear()
    status, text = dinodp(tmp_path, hub, "prefetch", path, "--to", "elsewhere", "--check")
    assert (status, "elsewhere holds 2 of 2" in text) == (0, True)
    load = f"load_backbone('some/net', revision='{COMMIT}', resolution=28)"
    code = f"from dinodp.backbones import load_backbone; print({load}.dim)"
    home = {"HF_HOME": str(tmp_path / "elsewhere/huggingface"), "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **home, "PYTHONPATH": str(ROOT / "scripts")}
    assert int(subprocess.check_output([sys.executable, "-c", code], env=environment)) > 0
    assert hub.asked == []
    assert dinodp(tmp_path, hub, "prefetch", path, "--to", "carried")[0] == 0
    assert not [path for command, path in hub.asked if command == "GET"]


def test_a_download_that_broke_off_goes_on(tmp_path, hub):
    path = configuration(tmp_path, hub)
    hub.breaks = [200_000]
    (tmp_path / "carried/data/packed").mkdir(parents=True)
    status, text = dinodp(tmp_path, hub, "prefetch", path, "--to", "carried")
    assert status == 0, text
    assert (tmp_path / "carried/data/packed/data.zip").read_bytes() == ARCHIVE


@pytest.mark.parametrize(
    ("archive", "sentence"),
    [
        ({"licence": "Research only."}, "set archives.mine.accept_licence: true"),
        ({"url": None, "instructions": "Ask for it."}, "Archive mine: Ask for it. Then put it at"),
        ({"sha256": "0" * 64}, "it is damaged or another version"),
        ({"url": "http://127.0.0.1:9/data.zip"}, "does not answer"),
    ],
)
def test_what_cannot_be_fetched_is_said_before_anything_comes(tmp_path, hub, archive, sentence):
    status, text = dinodp(tmp_path, hub, "prefetch", configuration(tmp_path, hub, **archive), "--to", "carried")
    assert (status, sentence in text, "Traceback" in text) == (1, True, False), text
    assert "fetched: some/net" not in text


def test_a_repository_without_weights_or_with_a_missing_part(tmp_path, hub):
    path = configuration(tmp_path, hub)
    hub.files = {"config.json": hub.files["config.json"]}
    status, text = dinodp(tmp_path, hub, "prefetch", path, "--to", "carried")
    assert (status, "has no weights on the Hugging Face hub" in text) == (1, True), text


def test_files_that_are_neither(tmp_path, hub):
    (tmp_path / "a.yaml").write_text("[")
    (tmp_path / "b.h5").write_text("no model")
    for name, sentence in (("a.yaml", "a.yaml cannot be read"), ("b.h5", "not a readable HDF5 file")):
        status, text = dinodp(tmp_path, hub, "prefetch", name, "--to", "carried")
        assert (status, sentence in text) == (1, True), text


@pytest.mark.parametrize(
    ("backbone", "included", "sentence"),
    [
        ({"backbone": "some/net", "revision": COMMIT, "weights_sha256": DIGEST}, None, "holds all 1."),
        ({"backbone": "some/net", "revision": COMMIT, "weights_sha256": "0" * 64}, None, "model was fitted with 000"),
        ({"backbone": "some/net", "revision": COMMIT, "weights_sha256": DIGEST}, {"licence": "MIT"}, "holds all 0."),
        ({"backbone": "classical", "revision": "1"}, None, "holds all 0."),
        ({"backbone": "my/net", "revision": "local"}, None, "was fitted with the folder my/net: carry that along"),
    ],
)
def test_what_a_model_needs(tmp_path, hub, backbone, included, sentence):
    store.write_state(tmp_path / "model.h5", {"backbone": backbone, "weights": included}, {}, {}, "detector")
    assert sentence in dinodp(tmp_path, hub, "prefetch", "model.h5", "--to", "carried")[1]
