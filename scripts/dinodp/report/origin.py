"""What a report is made from and by: data, code, versions, machine; and what the run cannot show."""

import json
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dinodp import store
from dinodp.datasets.manifest import SPLITS, read_manifest
from dinodp.evaluation.intervals import MIN_SUBJECTS, anomalous_subjects
from dinodp.evaluation.test_split import subjects_of
from dinodp.jobs.closure import code_digest
from dinodp.jobs.origin import read_table, sha256, table_origin
from dinodp.jobs.provenance import package_versions
from dinodp.metrics.definitions import names_of
from dinodp.report.comparison import Record
from dinodp.report.run_files import ReportFiles

FEW_SUBJECTS = 20
WITHOUT_MASKS = "no masks of its anomalous test images, so no metric of pixels or regions"
WITH_BOXES = "boxes in the place of masks, so no metric of pixels"
CPU_FILE = Path("/proc/cpuinfo")
BYTES_PER_GIB = 2**30


def data_rows(files: ReportFiles) -> list[dict[str, Any]]:
    """One row per data set: images per split and label, subjects, checksums."""
    return [_data_row(name, path, files.checksums.get(name)) for name, path in files.manifests.items()]


def _data_row(name: str, manifest: Path, checksums: Path | None) -> dict[str, Any]:
    frame = read_manifest(manifest)
    test = frame[frame["split"] == "test"]
    return {
        "dataset": name,
        **{split: _images(frame[frame["split"] == split]) for split in SPLITS},
        "subjects": test["subject"].replace("", pd.NA).nunique() or None,
        "anomalous_subjects": anomalous_subjects(subjects_of(test), test["label"] == "anomalous"),
        "manifest": table_origin(manifest).content_sha256,
        "checksums": None if checksums is None else table_origin(checksums).content_sha256,
    }


def _images(rows: pd.DataFrame) -> str:
    labels = rows["label"].value_counts()
    return " + ".join(f"{labels[label]} {label}" for label in ("normal", "anomalous") if label in labels)


def provenance(files: ReportFiles, commit: str) -> dict[str, str]:
    """Code, versions and machine, as names and values."""
    made_by = [_made_by(model.test) for model in files.models]
    digests = sorted({digest for digest, _ in made_by})
    versions = sorted({_listed(packages) for _, packages in made_by} | {_listed(package_versions())})
    return {
        "Code": f"git commit {commit}",
        "Code that made the scores": ", ".join(digests) + " (digest of the modules that it runs)",
        "Code that made this page": code_digest("dinodp.report.page"),
        "Versions": "; and ".join(versions),
        "Machine of this page": machine(),
        "Devices of the run": "; ".join(sorted(set(read_table(files.costs)["device"].dropna()))),
        "Published numbers": f"{files.published.name}, sha256 {sha256(files.published.read_bytes())}",
    }


def _made_by(path: Path) -> tuple[str, dict[str, str]]:
    with store.reading(path) as file:
        return str(file.attrs["library_digest"]), json.loads(file.attrs["package_versions"])


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def machine() -> str:
    """System, processor, cores and memory of this machine."""
    lines = CPU_FILE.read_text(encoding="utf-8").splitlines() if CPU_FILE.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / BYTES_PER_GIB
    processor = names[0] if names else platform.machine()
    return f"{platform.system()} {platform.machine()}, {processor}, {os.cpu_count()} cores, {memory:.0f} GiB"


def limits(config: Mapping[str, Any], rows: Sequence[Record], data: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the run does not show, one sentence each."""
    run = config["run"]
    said = [
        "A score is no diagnosis: this is research software and no medical device, and no clinician has read the cases."
    ]
    if run["published_embedding"] not in run["embeddings"]:
        said.append(
            f"The published numbers are for {run['published_embedding']}, which this run does not use: "
            "nothing here reproduces or contradicts them."
        )
    known = {row["dataset"] for row in rows if row["published"] is not None}
    if run.get("published_sources") == []:
        said.append("This run is compared with no published value.")
    elif without := [name for name in run["datasets"] if name not in known]:
        said.append(f"Nothing is published for {', '.join(without)}.")
    said += [sentence for row in data if (sentence := _left_out(row, _metrics_of(row["dataset"], rows)))]
    said += [sentence for row in data if (sentence := _few_subjects(row))]
    if len(run["seeds"]) == 1:
        said.append("One seed: how much the fits vary is not known.")
    loose = [name for name in run["embeddings"] if _unpinned(config["embeddings"][name])]
    if loose:
        said.append(f"No revision of the backbone is pinned for {', '.join(loose)}: its weights may change unseen.")
    accepted = {name: config["datasets"][name].get("accept", []) for name in run["datasets"]}
    said += [f"{name}: accepted deviations: {', '.join(names)}." for name, names in accepted.items() if names]
    return said


def _metrics_of(dataset: str, rows: Sequence[Record]) -> set[str]:
    return {str(row["metric"]) for row in rows if row["dataset"] == dataset}


def _left_out(row: Mapping[str, Any], metrics: Collection[str]) -> str:
    """What cannot be said of a data set without a class of test images, or without masks; empty for any other."""
    if "anomalous" not in row["test"]:
        return f"{row['dataset']} has no anomalous test image: it has thresholds and maps, but no metric."
    boxes = any(name in metrics for name in names_of("lesions"))
    missing = [] if "pixel_auroc" in metrics else [WITH_BOXES if boxes else WITHOUT_MASKS]
    missing += [] if "normal" in row["test"] else ["no normal test image, so no metric of whole images"]
    return f"{row['dataset']} has {', and '.join(missing)}." if missing else ""


def _few_subjects(row: Mapping[str, Any]) -> str:
    """What few test subjects mean for a data set; empty where there are enough."""
    if 0 < row["anomalous_subjects"] < MIN_SUBJECTS:
        return f"{row['dataset']}: fewer than {MIN_SUBJECTS} test subjects have an anomaly, so nothing has an interval."
    if row["subjects"] and row["subjects"] < FEW_SUBJECTS:
        few = f"{row['dataset']} has {row['subjects']} test subjects, which is few"
        return f"{few}: take its values and intervals as rough."
    return ""


def _unpinned(embedding: Mapping[str, Any]) -> bool:
    """Whether an embedding's backbone is a name on the hub without a commit."""
    name = str(embedding["backbone"])
    return "revision" not in embedding and name.count("/") == 1 and not Path(name).exists()
