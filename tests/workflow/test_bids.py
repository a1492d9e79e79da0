"""The pipeline on a BIDS tree: participants.tsv says who is healthy, and its columns are strata."""

import pandas as pd
import pytest
from project_copy import copy_project, small_run, snakemake
from scan_phantoms import bids_tree

RUN = ("--configfile", "config/bids.yaml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = small_run((1, 1, 1), datasets=["study"], embeddings=["small"], models=["memory_bank"], figures=[])
    run["run"] |= {"alignment_models": [], "bootstrap_resamples": 20, "mask_rules": ["gt0"]}
    entry = {"source": "bids", "root": "data/study", "suffix": "T1w", "session": "1", "slice_step": 6}
    entry |= {"mask_root": "data/study/derivatives/lesions", "metadata": "data/study/participants.tsv"}
    run["datasets"] = {"study": entry}
    run["embeddings"] = {"small": {"backbone": "classical", "resolution": 112}}
    folder = copy_project(tmp_path_factory.mktemp("bids"), "bids", run)
    bids_tree(folder / "data/study", 6, 2)
    snakemake(folder, *RUN)
    return folder


def test_participants_are_split_and_their_columns_are_strata(finished):
    manifest = pd.read_csv(finished / "results/data/study/manifest.csv")
    assert set(manifest["subject"][manifest["label"] == "anomalous"]) == {"sub-07", "sub-08"}
    strata = pd.read_csv(finished / "results/strata.csv")
    assert {"group", "age", "sex"} <= set(strata["property"])
    sexes = strata[(strata["property"] == "sex") & (strata["metric"] == "healthy_share_above_fpr05")]
    assert set(sexes["stratum"]) == {"F", "M"}
    assert "memory_bank" in set(pd.read_csv(finished / "results/metrics.csv")["model"])


def test_a_new_scan_makes_the_manifest_anew(finished):
    root = finished / "data/study"
    assert "Nothing to be done" in snakemake(finished, "-n", *RUN).text
    scan = root / "sub-01/ses-1/anat/sub-01_ses-1_acq-mprage_T1w.nii.gz"
    scan.with_name("sub-01_ses-1_run-2_T1w.nii.gz").write_bytes(scan.read_bytes())
    assert "rule prepare_dataset:" in snakemake(finished, "-n", *RUN).text
