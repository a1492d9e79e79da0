"""BIDS data sets: names, participants, and the source of the pipeline, on real trees of small NIfTI files."""

import shutil

import pytest
from scan_phantoms import bids_tree, lesion_mask

from dinodp.datasets.bids import BidsChoice, BidsName, Participants, column_of, find_bids, participants_of
from dinodp.datasets.manifest import read_manifest
from dinodp.datasets.sources import prepare_dataset
from dinodp.errors import InputError


@pytest.fixture
def root(tmp_path):
    return bids_tree(tmp_path / "data")


def test_names():
    name = BidsName.of("sub-01_ses-pre_space-MNI152_desc-preproc_T1w.nii.gz")
    assert name.entities == {"sub": "01", "ses": "pre", "space": "MNI152", "desc": "preproc"}
    assert (name.suffix, name.subject) == ("T1w", "sub-01")
    assert name.described("anomaly") == "sub-01_ses-pre_space-MNI152_desc-anomaly_T1w"
    assert name.described("anomaly", "mask") == "sub-01_ses-pre_space-MNI152_desc-anomaly_mask"


@pytest.mark.parametrize("name", ["T1w.nii.gz", "ses-1_sub-01_T1w.nii", "sub-01_run_T1w.nii", "sub-01_T1-w.nii", "a"])
def test_other_names_are_none(name):
    assert BidsName.of(name) is None


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (["suffix=T1w"], 9),
        (["suffix=T1w", "session=2"], 1),
        (["suffix=T1w", "ses=ses-2"], 1),
        (["suffix=T1w", "acquisition=mprage", "session=1"], 8),
        (["suffix=FLAIR", "acquisition="], 1),
    ],
)
def test_filters(root, filters, count):
    """Neither derivatives nor sourcedata are of the data set."""
    assert len(find_bids(root, BidsChoice.of(filters))) == count


def test_participants(root):
    controls = find_bids(root, BidsChoice("T1w"), Participants.of("group=control"))
    assert {name[:6] for name, _ in controls} == {f"sub-{number:02d}" for number in range(1, 7)}
    assert len(find_bids(root, BidsChoice("T1w"), Participants.of("age=31,32"))) == 2
    assert participants_of(root / "derivatives/lesions") == root / "participants.tsv"
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\tn/a\nsub-02\t5\n")
    assert column_of(root, "age") == {"sub-01": "", "sub-02": "5"}


def test_a_link_without_content_is_said(root, caplog):
    """As git-annex leaves them."""
    (root / "sub-02/ses-1/anat/sub-02_ses-1_run-2_T1w.nii.gz").symlink_to("nowhere")
    assert len(find_bids(root, BidsChoice("T1w"))) == 9
    assert "1 of the chosen files are links without a target (such as sub-02_ses-1_run-2_T1w.nii.gz)" in caplog.text


@pytest.mark.parametrize(
    ("filters", "participants", "sentence"),
    [
        (["session=1"], None, "--bids needs suffix=NAME"),
        (["T1w"], None, "'T1w' is no filter of the form KEY=VALUE"),
        (["suffix=T1w", "session=9"], None, "no NIfTI file with suffix=T1w ses=9 of 8 participants; suffixes there: "
         "FLAIR, T1w"),
        (["suffix=T1w"], "control", "'control' is not of the form COLUMN=VALUE"),
        (["suffix=T1w"], "group=HC", "has group HC; the column holds control, patient"),
        (["suffix=T1w"], "site=a", "has no column 'site'; there are participant_id, group, age, sex"),
    ],
)  # fmt: skip
def test_sentences(root, filters, participants, sentence):
    with pytest.raises(InputError, match=sentence):
        find_bids(root, BidsChoice.of(filters), participants and Participants.of(participants))


def test_what_is_no_data_set(root):
    with pytest.raises(InputError, match=r"is not the root of a BIDS data set: it holds no dataset_description.json"):
        find_bids(root / "sub-01", BidsChoice("T1w"))
    (root / "participants.tsv").write_text("id\n1\n")
    with pytest.raises(InputError, match="has no column participant_id"):
        column_of(root, "id")
    (root / "participants.tsv").unlink()
    with pytest.raises(InputError, match=r"There is no participants.tsv in the BIDS data set"):
        column_of(root, "group")


def prepare(root, folder, **options):
    entry = {"source": "bids", "root": str(root), "suffix": "T1w", "min_foreground": 0.02, **options}
    return read_manifest(prepare_dataset("x", entry, folder))


def test_source_with_masks(tmp_path, root):
    frame = prepare(root, tmp_path / "out", mask_root=str(root / "derivatives/lesions"), session="1")
    owners = frame.groupby("split")["subject"].unique().map(set)
    patients = {"sub-07", "sub-08"}
    assert owners["train"].isdisjoint(owners["valid"] | owners["test"])
    assert [len(owners[split]) for split in ("train", "valid", "test")] == [4, 1, 1 + len(patients)]
    assert patients < owners["test"]
    anomalous = frame[frame["label"] == "anomalous"]
    assert set(anomalous["subject"]) == patients
    slices = {index for index in range(lesion_mask().shape[2]) if lesion_mask()[:, :, index].any()}
    assert set(anomalous["slice"].astype(int)) <= slices
    assert (anomalous["mask"] != "").all()


def test_source_without_masks_has_labels_of_volumes(tmp_path, root):
    frame = prepare(root, tmp_path / "out")
    assert set(frame["subject"][frame["label"] == "anomalous"]) == {"sub-07", "sub-08"}
    assert (frame["mask"] == "").all()
    assert set(frame["label"][frame["split"] == "test"]) == {"normal", "anomalous"}


def test_source_with_splits_of_its_own(tmp_path, root):
    rows = ["participant_id\tgroup\tpart"]
    parts = ["train", "train", "valid", "test", "", "n/a", "test", "test"]
    rows += [f"sub-{n:02d}\t{'patient' if n > 6 else 'control'}\t{part}" for n, part in enumerate(parts, start=1)]
    (root / "participants.tsv").write_text("\n".join(rows))
    frame = prepare(root, tmp_path / "out", split_column="part")
    assert dict(frame.groupby("subject")["split"].first()) == {
        f"sub-{n:02d}": part for n, part in enumerate(parts, start=1) if part in ("train", "valid", "test")
    }


def test_sentences_of_the_source(tmp_path, root):
    shutil.rmtree(root / "derivatives/lesions/sub-07")
    with pytest.raises(InputError, match=r"sub-07_ses-1_acq-mprage_T1w.nii.gz has no mask in"):
        prepare(root, tmp_path / "out", mask_root=str(root / "derivatives/lesions"))
    with pytest.raises(InputError, match=r"2 participants of .* are healthy .group patient.; at least 3 are needed"):
        prepare(root, tmp_path / "out", healthy_values=["patient"])
    with pytest.raises(InputError, match=r"no participant of .* is in a split"):
        prepare(root, tmp_path / "out", split_column="sex")
