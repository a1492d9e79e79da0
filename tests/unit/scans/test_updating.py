"""`dinodp update`: a fit goes on with new healthy scans, and the old thresholds stay beside the new."""

import json

import numpy as np
import pytest
from scan_phantoms import FAST_FIT, WINDOW, head, lesion_mask, save

from dinodp import store
from dinodp.cli import main
from dinodp.errors import InputError
from dinodp.scans import AnomalyDetector
from dinodp.scans.detecting.model_file import load_detector
from dinodp.scans.detecting.origin import MOST_UPDATES, Origin, Update

BANK = ["--backbone", "classical", "--resolution", "168", "--method", "memory_bank", "max_embeddings=600"]
RATES = {"fpr10": 0.1, "fpr05": 0.05, "fpr01": 0.01}
DIGEST = "a" * 64


def brighter(seed):
    """Another scanner: the bright core is less bright."""
    values = head(seed).astype(float)
    return np.where(values > 400, values - 60, values).astype(np.int16)


@pytest.fixture(scope="module", params=["dpmm", "memory_bank"])
def folder(request, tmp_path_factory):
    """An old model of five scans, and six new scans."""
    place = tmp_path_factory.mktemp(request.param)
    for seed in range(5):
        save(place / f"old/h{seed}.nii.gz", head(seed))
    for seed in range(10, 16):
        save(place / f"new/n{seed}.nii.gz", brighter(seed))
    method = FAST_FIT if request.param == "dpmm" else [*BANK, "--slice-step", "2"]
    assert main(["fit", str(place / "old"), "--out", str(place / "old.h5"), *method, *WINDOW]) == 0
    return place


def test_an_update_keeps_the_old_thresholds_and_says_how_far_they_moved(folder, capsys):
    before = (folder / "old.h5").read_bytes()
    assert main(["update", str(folder / "old.h5"), str(folder / "new"), "--out", str(folder / "updated.h5")]) == 0
    said = capsys.readouterr().out
    assert (folder / "old.h5").read_bytes() == before
    old, new = (load_detector(folder / f"{name}.h5") for name in ("old", "updated"))
    update = new.origin.updates[0]
    assert dict(update.thresholds) == dict(old.calibration.thresholds)
    assert update.model_sha256 == store.digest_of(folder / "old.h5")
    with store.reading(folder / "updated.h5", "detector") as file:
        assert store.inputs_of(file) == {"model": update.model_sha256}
    assert (update.scans, update.held_out_scans) == (5, 1)
    assert (new.origin.scans, new.origin.held_out_scans) == (old.origin.scans + 5, 1)
    assert new.origin.scans_sha256[:5] == old.origin.scans_sha256
    assert len(new.origin.scans_sha256) == 11
    for name, limit in old.calibration.thresholds.items():
        row = next(line for line in said.splitlines() if line.startswith(name)).split()
        now = new.calibration.thresholds[name]
        assert [float(value) for value in row[1:4]] == pytest.approx([limit, now, now - limit], rel=2e-3, abs=1e-6)
        assert row[4:] == [f"{update.before[name]:.1%}", f"{update.after[name]:.1%}"]
    card = (folder / "updated.card.md").read_text()
    assert "Updated with 5 more healthy scans (and 1 held out" in card
    assert "Updated" not in (folder / "old.card.md").read_text()


def test_the_updated_model_knows_the_new_scans_and_still_the_old(folder):
    old, new = (AnomalyDetector.load(folder / f"{name}.h5") for name in ("old", "updated"))
    fresh, known = (save(folder / f"{name}.nii.gz", scan) for name, scan in (("x", brighter(30)), ("y", head(31))))
    healthy = brighter(30) > 0
    assert new.anomaly_map(fresh)[healthy].mean() < old.anomaly_map(fresh)[healthy].mean()
    for scan in (fresh, known):
        assert (new.anomaly_map(scan, calibrated=True)[healthy] < 0.01).mean() < 0.1
    lesion = save(folder / "z.nii.gz", head(7, lesion=True))
    assert np.median(new.anomaly_map(lesion, calibrated=True)[lesion_mask()]) < 0.05


def test_an_update_again_and_over_itself_only_when_told(folder, capsys):
    for seed in (40, 41):
        save(folder / f"more/m{seed}.nii.gz", head(seed))
    command = ["update", str(folder / "updated.h5"), str(folder / "more"), "--out", str(folder / "updated.h5")]
    assert main(command) == 1
    assert "updated.h5 exists already: choose another name, or add --overwrite" in capsys.readouterr().err
    before = load_detector(folder / "updated.h5")
    assert main([*command, "--overwrite"]) == 0
    after = load_detector(folder / "updated.h5")
    assert [update.scans for update in after.origin.updates] == [5, 1]
    assert after.origin.updates[0] == before.origin.updates[0]
    assert len(after.state.get("remembered", [])) in (0, 600)


def test_scans_that_the_model_knows_are_left_out(folder, capsys):
    command = ["update", str(folder / "old.h5"), str(folder / "old"), "--out", str(folder / "u.h5")]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "h0 is in the model already, and is left out." in error
    assert error.splitlines()[-1] == "dinodp: All 5 scans are in the model already: there is nothing to learn."
    save(folder / "one/o.nii.gz", head(50))
    assert main(["update", str(folder / "old.h5"), str(folder / "one"), "--out", str(folder / "u.h5")]) == 1
    assert "There is one scan: at least two are needed" in capsys.readouterr().err
    save(folder / "other/o.nii.gz", head(51) * 20)
    assert main(["update", str(folder / "old.h5"), str(folder / "other"), "--out", str(folder / "u.h5")]) == 1
    assert "another modality or scaling" in capsys.readouterr().err
    assert not (folder / "u.h5").exists()


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (["eb_mixture", "components=8", "epochs=1"], "A fit of the family eb_mixture cannot go on with new scans: fit"),
        (["k_means", "components=8", "epochs=1"], "A fit of the family k_means cannot go on with new scans: fit again"),
        (["gaussian"], "A fit of the family gaussian cannot go on with new scans: fit again with all of them (dpmm, g"),
        (["memory_bank", "shots=3"], "A memory bank of a few shots, a coreset or an index cannot go on with "),
    ],
)
def test_families_that_cannot_go_on_say_so(tmp_path, capsys, method, sentence):
    for seed in range(4):
        save(tmp_path / f"{seed // 2}/{seed}.nii.gz", head(seed))
    options = ["--backbone", "classical", "--resolution", "112", "--slice-step", "6", "--method", *method]
    assert main(["fit", str(tmp_path / "0"), "--out", str(tmp_path / "m.h5"), *options]) == 0
    assert main(["update", str(tmp_path / "m.h5"), str(tmp_path / "1"), "--out", str(tmp_path / "n.h5")]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "n.h5").exists()


def made(**changed):
    values = {"model_sha256": DIGEST, "scans": 1, "held_out_scans": 1, "thresholds": RATES, "before": RATES}
    return Update(**{**values, "after": RATES, **changed})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: made(model_sha256="x"), "must be SHA-256"),
        (lambda: made(scans=-1), "must be integers from 0"),
        (lambda: made(thresholds={"fpr10": 1.0}), "must have the thresholds fpr10, fpr05, fpr01"),
        (lambda: made(after={**RATES, "fpr01": float("nan")}), "must be a finite number"),
        (lambda: Origin(1, 1, "many", 0, []), "must be integers from 0"),
        (lambda: Origin(1, 1, 1, 0, ["short"]), "must be SHA-256"),
        (lambda: Origin(1, 1, 1, 0, [DIGEST], [made()] * (MOST_UPDATES + 1)), "at most 1000 are read"),
    ],
    ids=["digest", "count", "thresholds", "rate", "slices", "digests", "updates"],
)
def test_an_origin_that_no_fit_gives_is_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


def test_an_origin_survives_json():
    origin = Origin(3, 1, 40, 0, [DIGEST], [made()])
    assert Origin.from_json(json.loads(json.dumps(origin.to_json(), sort_keys=True))) == origin
