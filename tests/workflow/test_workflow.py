"""The whole DAG on a small run of real files, through the snakemake command."""

import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from project_copy import ROOT, copy_project, kill_when, small_run, snakemake

SMALL = small_run(
    (24, 10, 12),
    models=["memory_bank", "dpmm_demo", "random", "oracle"],
    figure_models=["memory_bank", "dpmm_demo"],
    protocols={"paper": {"model": "dpmm_demo"}, "ours": {"model": "dpmm_demo", "threshold_maps": "pixel"}},
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with a small run in it, so that tests may edit files."""
    return copy_project(tmp_path_factory.mktemp("project"), "small", SMALL)


@pytest.fixture(scope="module")
def finished(project):
    snakemake(project, "--configfile", "config/small.yaml")
    return project


def test_every_table_and_figure_is_there(finished):
    tables = {path.name for path in (finished / "results/tables").iterdir()}
    assert tables == {
        f"{name}.{kind}{end}"
        for name in ("table1", "table2", "table3", "costs")
        for kind in ("csv", "md", "tex")
        for end in ("", ".origin.json")
    }
    figures = list((finished / "results/figures/phantoms/classical").iterdir())
    assert len(figures) == 12
    assert all(path.stat().st_size > 5000 for path in figures)


def test_the_report_tells_how_to_make_it_again(finished):
    text = (finished / "results/report.html").read_text()
    assert "snakemake --cores 2 --configfile config/small.yaml" in text
    assert "Tiny phantoms." in text
    assert "git commit unknown" in text


def test_analyses_are_made_and_reported(finished):
    strata = pd.read_csv(finished / "results/strata.csv")
    assert set(strata["model"]) == {"memory_bank", "dpmm_demo"}
    assert {"lesion_share", "contrast"} <= set(strata["property"])
    alignment = pd.read_csv(finished / "results/alignment/phantoms/classical.csv")
    assert {"explained by place", "explained by intensity"} <= set(alignment["measure"])
    text = (finished / "results/report.html").read_text()
    for heading in ("Where it fails", "Do components follow anatomy?", "Protocols side by side"):
        assert heading in text


def test_snakemakes_own_report_has_every_table_and_figure_with_its_caption(finished):
    snakemake(finished, "--configfile", "config/small.yaml", "--report", "snakemake-report.html")
    text = (finished / "snakemake-report.html").read_text()
    start = re.search(r'<script id="results">\s*var results = ', text).end()
    shown, _ = json.JSONDecoder().raw_decode(text, start)
    made = {str(path.relative_to(finished)) for path in (finished / "results/tables").glob("*.csv")}
    made |= {str(path.relative_to(finished)) for path in (finished / "results/figures").rglob("*.png")}
    assert made | {"results/report.html", "results/alignment/phantoms/classical.png"} == set(shown)
    captions = {path: re.sub(r"<[^>]+>", "", entry["caption"]).strip() for path, entry in shown.items()}
    assert len(set(captions.values())) == len(shown)
    assert captions["results/tables/costs.csv"].startswith("Time, memory and size of every model")
    assert captions["results/figures/phantoms/classical/component_maps.png"].startswith("The mixture component that")
    assert "Tiny phantoms." in text


def test_controls_bound_the_models(finished):
    metrics = pd.read_csv(finished / "results/metrics.csv")
    auroc = metrics[(metrics.metric == "pixel_auroc") & (metrics.mask_rule == "gt0")].set_index(["model", "score"])[
        "value"
    ]
    assert abs(auroc["random", "random"] - 0.5) < 0.1
    assert auroc["oracle", "oracle"] > 0.97
    for model in ("memory_bank", "dpmm_demo"):
        assert auroc["random", "random"] + 0.1 < auroc[model, "cosine"] < auroc["oracle", "oracle"]


def test_costs_have_no_gap_where_there_must_be_a_number(finished):
    costs = pd.read_csv(finished / "results/costs.csv")
    assert set(costs["model"]) == {"memory_bank", "dpmm_demo", "random", "oracle"}
    assert costs[["fit_seconds", "backbone_ms_per_image", "scoring_ms_per_image", "peak_host_mib"]].notna().all().all()


def test_a_second_run_does_nothing(finished):
    assert "Nothing to be done" in snakemake(finished, "--configfile", "config/small.yaml").text


@contextmanager
def edited(folder, path, text):
    """A file with other content, then as it was, also in its time."""
    file = folder / path
    original, made = file.read_text(), file.stat()
    file.write_text(text(original))
    try:
        yield
    finally:
        file.write_text(original)
        os.utime(file, ns=(made.st_atime_ns, made.st_mtime_ns))


def stale_rules(folder, path, text=lambda original: original + "\nEDITED = 1\n"):
    """The rules that would run after an edit."""
    with edited(folder, path, text):
        listing = snakemake(folder, "-n", "--configfile", "config/small.yaml").text
    return set(re.findall(r"(?m)^(?:local)?rule (\w+):", listing))


DATA = {"prepare_dataset", "verify_dataset", "accept_dataset"}
FITTED = {"fit_model", "score", "evaluate", "stratify", "align", "draw_figure"}
COLLECTED = {"collect_metrics", "collect_intervals", "collect_costs", "collect_strata"}
SHOWN = {"make_table", "summarise", "write_report"}
EDITS = {  # a module, the rules that run it, and those that take their results
    "jobs/logs.py": DATA | {"describe_cases", "embed"} | FITTED | COLLECTED | SHOWN,
    "datasets/sources/nifti.py": DATA | {"describe_cases", "embed"} | FITTED | COLLECTED | SHOWN,
    "datasets/verification.py": {"verify_dataset", "accept_dataset", "describe_cases", "embed", "write_report"}
    | FITTED | COLLECTED | SHOWN,
    "backbones/directory.py": {"embed"} | FITTED | COLLECTED | SHOWN,
    "models/memory_bank.py": FITTED | COLLECTED | SHOWN,
    "families/fit_job.py": FITTED | COLLECTED | SHOWN,
    "metrics/definitions/aupro_30.py": {"evaluate", "stratify", "align", "draw_figure"}
    | COLLECTED - {"collect_costs"} | SHOWN,
    "evaluation/strata.py": {"stratify", "collect_strata", "write_report"},
    "report/tables/latex.py": SHOWN,
    "report/figures/training_history.py": {"draw_figure", "align", "write_report"},
    "report/alignment/measures.py": {"align", "write_report"},
    "report/case_gallery.py": {"write_report"},
    "scans/writing/gallery.py": set(),
}  # fmt: skip


@pytest.mark.parametrize("module", EDITS)
def test_an_edit_makes_stale_what_runs_the_module_and_nothing_else(finished, module):
    rules = stale_rules(finished, f"scripts/dinodp/{module}")
    assert rules - {"all"} == EDITS[module]


def test_an_edited_template_makes_the_report_stale(finished):
    assert stale_rules(finished, "scripts/dinodp/report/templates/report.css") == {"all", "write_report"}


def test_an_edited_comment_or_docstring_makes_nothing_stale(finished):
    with edited(finished, "scripts/dinodp/store.py", lambda text: text.replace('"""', '"""Now: ', 1)):
        assert stale_rules(finished, "scripts/dinodp/images.py", lambda text: "# A comment.\n" + text) == set()


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ("embeddings: {classical: {grid: [14, 14]}}", FITTED | COLLECTED | SHOWN),
        ("embeddings: {classical: {batch_size: 3}}", {"write_report"}),
        ("run: {cache: memory, processes: 2}", {"write_report"}),
        ("run: {note: Another.}", {"summarise", "write_report"}),
        ("run: {aupr: average_precision}", SHOWN),
    ],
)
def test_a_changed_key_makes_stale_what_depends_on_it(finished, change, rules):
    """The report prints the whole configuration."""
    (finished / "config/change.yaml").write_text(change)
    listing = snakemake(finished, "-n", "--configfile", "config/small.yaml", "config/change.yaml").text
    assert set(re.findall(r"(?m)^(?:local)?rule (\w+):", listing)) - {"all"} == rules


def test_same_seed_same_bytes(finished):
    model = finished / "results/models/phantoms/classical/dpmm_demo/seed-0.h5"
    metrics = finished / "results/metrics/phantoms/classical/dpmm_demo/seed-0.json"
    before = model.read_bytes(), metrics.read_bytes()
    snakemake(finished, "--configfile", "config/small.yaml", "--forcerun", "fit_model", "--until", "evaluate")
    assert (model.read_bytes(), metrics.read_bytes()) == before


def test_shards_and_kills_change_no_byte_of_a_result(finished, tmp_path):
    """Two shards; killed while it embeds and while it scores, then started again with --rerun-incomplete."""
    run = {**SMALL["run"], "models": ["memory_bank", "dpmm_demo"], "shards": 2}
    copy_project(tmp_path, "sharded", {**SMALL, "run": run})
    arguments = ["--configfile", "config/sharded.yaml"]
    assert "good condition" in snakemake(tmp_path, "--lint", *arguments).text
    kill_when(tmp_path, "results/embeddings/phantoms/classical/*/*", *arguments)
    kill_when(tmp_path, "results/logs/score/**/shard-*.log", *arguments)
    snakemake(tmp_path, *arguments, "--rerun-incomplete", "--until", "evaluate")
    for split in ("train", "valid", "test"):
        path = f"results/embeddings/phantoms/classical/{split}.h5"
        with h5py.File(finished / path) as whole, h5py.File(tmp_path / path) as gathered:
            assert gathered["tokens"].is_virtual
            assert gathered["tokens"][()].tobytes() == whole["tokens"][()].tobytes()
    kinds = ("models", "scores", "curves", "metrics")
    results = [path for kind in kinds for path in (tmp_path / "results" / kind).rglob("*") if path.is_file()]
    compared = [path.relative_to(tmp_path) for path in results if ".cost." not in path.name]
    assert len(compared) == 2 * (1 + 2 + 1 + 1)
    for path in compared:
        assert (tmp_path / path).read_bytes() == (finished / path).read_bytes(), path


def test_the_paper_can_be_listed_without_data(project):
    text = snakemake(project, "-n", "--configfile", "config/paper.yaml").text
    for dataset in ("brats2021", "liver", "resc"):
        assert f"results/data/{dataset}/manifest.csv" in text
    for model in ("memory_bank", "dpmm_diag", "dpmm_diag_raw"):
        assert f"results/scores/resc/dinov2_vits14/{model}/seed-0/test.h5" in text
    assert "results/models/liver/dinov2_vits14/dpmm_diag/seed-4.h5" in text
    assert "results/tables/table3.tex" in text


@pytest.mark.parametrize("name", [path.name for path in (ROOT / "config").glob("*.yaml") if path.stem != "catalog"])
def test_every_run_file_can_be_listed_without_data(project, name):
    assert "write_report" in snakemake(project, "-n", "--configfile", f"config/{name}").text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seedz": [0]}, "Configuration, run: unknown key 'seedz'; it has title, note, datasets"),
        ({"models": ["dpmm_typo"]}, "Unknown name 'dpmm_typo' under run.models"),
        ({"mask_rules": ["gt1"]}, "Configuration, run.mask_rules.0: 'gt1' is not allowed; choose 'gt0' or 'eq255'."),
        ({"seeds": []}, "Configuration, run.seeds: [] has too few values; at least 1 must be given."),
        (
            {"figure_models": ["dpmm_demo", "k_means"]},
            "run.figure_models names the model 'k_means', which is not among run.models: memory_bank, dpmm_demo,",
        ),
        ({"alignment_models": ["dpmm_diag"]}, "run.alignment_models names the model 'dpmm_diag', which is not among"),
        ({"protocols": {"a": {"model": "bank"}}}, "run.protocols names the model 'bank', which is not among"),
        ({"baseline": "memory_bnak"}, "Unknown name 'memory_bnak' under run.baseline"),
        ({"device": "cuda"}, "Configuration, run.device: it is cuda, but this machine shows no NVIDIA GPU"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(project, change, sentence):
    path = project / "config/wrong.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "run": {**SMALL["run"], **change}}))
    result = snakemake(project, "-n", "--configfile", "config/wrong.yaml", check=False)
    assert result.returncode != 0
    assert sentence in result.text
    assert len(result.text.splitlines()) < 12


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"models": {"x": {"family": "memory_bank", "epochs": 7}}}, "models.x: unknown key 'epochs' for"),
        ({"datasets": {"phantoms": {"sed": 3}}}, "Configuration, datasets.phantoms: unknown key 'sed' for the source"),
        ({"embeddings": {"classical": {"layers": [2]}}}, "embeddings.classical.layers.0: 2 is not allowed"),
    ],
)
def test_a_mistake_in_an_entry_ends_before_the_first_job(project, entries, sentence):
    (project / "config/wrong.yaml").write_text(yaml.safe_dump({**SMALL, **entries}))
    result = snakemake(project, "-n", "--configfile", "config/wrong.yaml", check=False)
    assert result.returncode != 0
    assert sentence in result.text


@pytest.mark.parametrize("where", [["--executor", "slurm", "--jobs", "2"], []])
def test_a_gpu_may_be_insisted_on_where_jobs_run_elsewhere(project, where, monkeypatch):
    if not where:  # environments for another machine
        monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "12.8")
    run = {**SMALL["run"], "device": "cuda"}
    (project / "config/elsewhere.yaml").write_text(yaml.safe_dump({**SMALL, "run": run}))
    text = snakemake(project, "-n", "--forceall", *where, "--configfile", "config/elsewhere.yaml").text
    assert "gpu=1" in text


@pytest.mark.parametrize("change", [{"grid": [8, 8]}, {"batch_size": 3}])
def test_a_key_that_an_output_does_not_depend_on_does_not_remake_it(finished, change):
    (finished / "config/other.yaml").write_text(yaml.safe_dump({**SMALL, "embeddings": {"classical": change}}))
    text = snakemake(finished, "-n", "--configfile", "config/other.yaml").text
    assert "rule embed" not in text
    assert ("rule fit_model" in text) == ("grid" in change)


def test_a_name_that_is_no_wildcard_is_refused(project):
    (project / "config/wrong.yaml").write_text(yaml.safe_dump({**SMALL, "models": {"my-model": {"family": "dpmm"}}}))
    result = snakemake(project, "-n", "--configfile", "config/wrong.yaml", check=False)
    assert result.returncode != 0
    assert "Configuration, models: 'my-model' does not match '^[a-z0-9_]+$'" in result.text


def test_the_command_of_the_report_names_all_files_and_values_once(project):
    (project / "config/more.yaml").write_text("run:\n  seeds: [3]\n")
    (project / "print.smk").write_text('include: "Snakefile"\nprint("COMMAND", command_line(), list(RUN.seeds))\n')
    given = ["--configfile", "config/small.yaml", "config/more.yaml", "--config", "run={title: A b}"]
    text = snakemake(project, "-s", str(project / "print.smk"), "-n", *given).text
    (command,) = re.findall(r"COMMAND (.*) \[3\]", text)
    expected = ["snakemake", "--cores", "2", *given[:3], "--config", "run={'title': 'A b'}"]
    assert shlex.split(command) == expected


def test_the_catalog_is_found_from_any_working_directory(project, tmp_path):
    text = snakemake(project, "-n", "-d", str(tmp_path)).text
    assert "results/data/phantoms/manifest.csv" in text


def run_with(project, name, datasets, check=False, *arguments):
    """Run a configuration whose data sets are those given."""
    run = {**SMALL["run"], "datasets": list(datasets)}
    (project / f"config/{name}.yaml").write_text(yaml.safe_dump({**SMALL, "datasets": datasets, "run": run}))
    return snakemake(project, "--configfile", f"config/{name}.yaml", *arguments, check=check)


def test_a_missing_folder_ends_in_one_sentence_in_log_and_terminal(project):
    result = run_with(project, "mine", {"mine": {"source": "bmad", "root": "data/mine"}})
    assert result.returncode != 0
    log = (project / "results/logs/prepare_dataset/mine.log").read_text()
    assert "Error: Data set mine: there is no folder data/mine (key root)" in log
    assert "Traceback" not in log
    assert log.strip().splitlines()[-1] in result.text


def test_data_that_is_not_as_published_stops_until_it_is_accepted(project):
    tiny = {**SMALL["datasets"]["phantoms"], "source": "phantoms", "size": 64, "expect": {"size": [64, 65]}}
    result = run_with(project, "odd", {"odd": tiny})
    assert result.returncode != 0
    log = (project / "results/logs/accept_dataset/odd.log").read_text()
    assert "Error: Data set odd: image_size: images of 46 64x64 pixels, published are 64x65." in log
    assert "set accept: [image_size]" in log
    assert "image_size" in (project / "results/data/odd/verification.md").read_text()
    accepted = {"odd": {**tiny, "accept": ["image_size"]}}
    run_with(project, "odd", accepted, True, "--until", "accept_dataset")
    assert (project / "results/data/odd/accepted.txt").read_text().startswith("image_size: ")


def test_an_archive_is_fetched_only_where_there_is_no_copy(project):
    entry = {"source": "bmad", "root": "data/copy", "archive": {"name": "bmad_mirror", "member": "Brain"}}
    text = run_with(project, "copy", {"copy": entry}, True, "-n").text
    assert "rule download_archive" in text
    (project / "data/copy").mkdir(parents=True)
    text = run_with(project, "copy", {"copy": entry}, True, "-n").text
    assert "rule prepare_dataset" in text
    assert "rule download_archive" not in text


def test_from_an_address_to_a_manifest(project, tmp_path):
    """A small archive in BMAD's layout, served on loopback: fetched, unpacked, listed, verified."""
    served = tmp_path / "served"
    for folder, count in (("train/good", 2), ("valid/good/img", 1), ("test/good/img", 1), ("test/Ungood/img", 1)):
        for index in range(count):
            for path in {folder, folder.replace("img", "label")}:
                target = served / "Brain" / path / f"{folder.replace('/', '')}{index}_60.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.effect_noise((8, 8), 50 + len(folder) + index).save(target)
    for path in served.glob("Brain/*/Ungood/label/*"):
        Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(path)
    for path in served.glob("Brain/*/good/label/*"):
        Image.new("L", (8, 8)).save(path)
    packed = Path(shutil.make_archive(str(tmp_path / "bmad"), "zip", served))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        archive = {"url": f"http://127.0.0.1:{server.server_port}/bmad.zip", "file": "data/downloads/served.zip"}
        archive["sha256"] = hashlib.sha256(packed.read_bytes()).hexdigest()
        entry = {"source": "bmad", "root": "data/served", "archive": {"name": "served", "member": "Brain"}}
        run = {**SMALL["run"], "datasets": ["served"]}
        content = {**SMALL, "datasets": {"served": entry}, "archives": {"served": archive}, "run": run}
        (project / "config/served.yaml").write_text(yaml.safe_dump(content))
        snakemake(project, "--configfile", "config/served.yaml", "--until", "accept_dataset")
        server.shutdown()
    manifest = pd.read_csv(project / "results/data/served/manifest.csv")
    assert manifest["split"].value_counts().to_dict() == {"train": 2, "test": 2, "valid": 1}
    assert "No deviation was found" in (project / "results/data/served/verification.md").read_text()
