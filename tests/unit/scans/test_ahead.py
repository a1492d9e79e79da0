"""The next scan is read while one is measured, embedded or scored, and results are written while that goes on."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scan_phantoms import FAST, healthy_folder

from dinodp.errors import InputError
from dinodp.scans.detecting import fitting
from dinodp.scans.detecting.fitting import UnreadScan, calibrate, embed_scans, measure, unread_scans
from dinodp.scans.detecting.settings import Settings
from dinodp.scans.detecting.token_file import TokenFile
from dinodp.scans.reading.folder import find_scans
from dinodp.scans.writing import prediction
from dinodp.scans.writing.prediction import PredictionOptions, Result

N = 3


class Reading:
    """Scans that are their numbers, and what must have been read when one of them is used."""

    def __init__(self):
        self.read = [threading.Event() for _ in range(N)]
        self.scans = [
            SimpleNamespace(name=f"s{index}", read=lambda axes, index=index: self.done(index)) for index in range(N)
        ]
        self.preparation = SimpleNamespace(
            healthy=SimpleNamespace(axes=None),
            settings=SimpleNamespace(slice_step=1, subject_pattern=None, model=SimpleNamespace(normalise=False)),
            of=lambda scan, every: self.prepared(scan),
        )

    def done(self, index):
        self.read[index].set()
        return index

    def require_next(self, index):
        assert index + 1 == N or self.read[index + 1].wait(10), f"scan {index + 1} is not read while {index} is used"

    def prepared(self, index):
        shown = np.ones((2, 2, 2), dtype=bool)
        return SimpleNamespace(
            scan=index, chosen=[0, 1], pictures=lambda: [index, index], patch_foreground=lambda backbone, grid: shown
        )


class Backbone:
    """An embedder of two batches of one slice, which notes when the second begins."""

    device, backbone = torch.device("cpu"), None

    def __init__(self, reading):
        self.reading, self.went_on = reading, [threading.Event() for _ in range(N)]

    def embed(self, pictures):
        index, _ = pictures
        self.reading.require_next(index)
        yield torch.full((1, 2, 2, 3), index + 0.5)
        self.went_on[index].set()
        yield torch.full((1, 2, 2, 3), index + 0.25)


def test_the_next_scan_is_read_and_the_last_batch_written_while_one_is_embedded(tmp_path, monkeypatch):
    reading, written = Reading(), []
    backbone, append = Backbone(reading), TokenFile.append

    def appended(self, tokens, shown, subject):
        if tokens.flatten()[0] % 1 == 0.5:
            assert backbone.went_on[int(tokens.flatten()[0])].wait(10), "the backbone waits until a batch is written"
        written.append(float(tokens.flatten()[0]))
        return append(self, tokens, shown, subject)

    monkeypatch.setattr(TokenFile, "append", appended)
    file = embed_scans(reading.scans, "embed", backbone, reading.preparation, tmp_path)
    assert written == [0.5, 0.25, 1.5, 1.25, 2.5, 2.25]
    assert file.read(range(6))[:, 0, 0, 0].tolist() == written
    assert (file.counts, file.subjects) == ([2, 2, 2], ["s0", "s0", "s1", "s1", "s2", "s2"])
    file.close()


def test_the_next_scan_is_read_while_one_is_scored():
    reading = Reading()
    scored = []

    def score_tokens(prepared, tokens):
        reading.require_next(prepared.scan)
        scored.append([float(part.flatten()[0]) for part in tokens])
        return SimpleNamespace(calibration_voxels=np.arange(500, dtype=np.float32), score=1.0)

    scorer = SimpleNamespace(
        preparation=reading.preparation, embedder=Backbone(reading), settings=reading.preparation.settings,
        score_tokens=score_tokens,
    )  # fmt: skip
    calibrate(reading.scans, SimpleNamespace(read=lambda indices: torch.full((1,), float(indices[0]))), scorer)
    assert scored == [[0, 1], [2, 3], [4, 5]]


def test_the_next_scan_is_read_while_one_is_measured(tmp_path, monkeypatch):
    settings = Settings(**FAST)
    unread = unread_scans(find_scans(healthy_folder(tmp_path, N)), settings)
    read = [threading.Event() for _ in unread]

    def noted(scan, index):
        def reader(options):
            found = scan.reader(options)
            read[index].set()
            return found

        return UnreadScan(scan.name, reader, scan.axes, scan.options)

    measures, seen = fitting.Measures.of, []

    def of(scan):
        seen.append(scan.path)
        assert len(seen) == N or read[len(seen)].wait(10), "the next scan is not read while one is measured"
        return measures(scan)

    monkeypatch.setattr(fitting.Measures, "of", of)
    measure([noted(scan, index) for index, scan in enumerate(unread)], settings)
    assert len(seen) == N


def test_the_next_scan_is_read_and_the_last_written_while_one_is_predicted(monkeypatch, tmp_path):
    reading, scored = Reading(), [threading.Event() for _ in range(N)]

    def score(scan, detector, options):
        reading.require_next(scan)
        scored[scan].set()
        return scan

    def write(name, path, found, *_):
        assert found + 1 == N or scored[found + 1].wait(10), "the next scan waits until one is written"
        return Result(name, path)

    monkeypatch.setattr(prediction, "read_scan", lambda name, path, options: reading.done(int(name)))
    monkeypatch.setattr(prediction, "_scored", score)
    monkeypatch.setattr(prediction, "_predict", write)
    detector = SimpleNamespace(scorer=SimpleNamespace(preparation=SimpleNamespace(reading=lambda: None)))
    kept = SimpleNamespace(done=lambda name, path: None, keep=lambda result: None)
    scans = [(str(index), tmp_path / str(index)) for index in range(N)]
    found = prediction.predict_scans(scans, detector, tmp_path, PredictionOptions(), kept)
    assert [result.name for result in found] == ["0", "1", "2"]


def test_all_scans_that_cannot_be_read_are_counted(tmp_path):
    """Also those after the first: an error does not end the reading ahead."""
    folder = healthy_folder(tmp_path, 5)
    for name in ("h1", "h3"):
        (folder / f"{name}.nii.gz").write_bytes(b"no volume")
    settings = Settings(**FAST)
    with pytest.raises(InputError, match=r"^2 of the 5 scans cannot be used; the first: .*h1\.nii\.gz"):
        measure(unread_scans(find_scans(folder), settings), settings)
