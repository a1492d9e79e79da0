"""The workflow as a module of another one, as the Snakemake workflow catalog uses it, and from any folder."""

import functools
import os
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest
import yaml
from project_copy import ROOT, small_run

FROM_THE_LIBRARY = "from dinodp.jobs.snakefile import SNAKEFILE\n"
WORKFLOW = """
configfile: "mine.yaml"

rule all:
    default_target: True
    input: "best.txt"

module dinodp:
    snakefile: {snakefile}
    config: config["anomalies"]
    {more}

use rule * from dinodp as dinodp_*

use rule evaluate from dinodp as dinodp_evaluate with:
    threads: 2

rule best:
    input: "{prefix}results/metrics.csv"
    output: "best.txt"
    shell: "sort -t, -k9 {{input}} | tail -n {{config[lines]}} > {{output}}"
"""
CONFIG = {"lines": 1, "anomalies": small_run((10, 4, 5), components=5, epochs=1)}


def other_workflow(folder, snakefile="SNAKEFILE", prefix="", more="", config=CONFIG, before=FROM_THE_LIBRARY):
    (folder / "Snakefile").write_text(before + WORKFLOW.format(snakefile=snakefile, prefix=prefix, more=more))
    (folder / "mine.yaml").write_text(yaml.safe_dump(config))


def run(folder, *arguments, program=("-m", "snakemake"), check=True):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, *program, "--cores", "2", *arguments]
    captured = {"capture_output": True, "text": True, "timeout": 600, "check": False}
    done = subprocess.run(command, cwd=folder, env=environment, **captured)
    text = done.stdout + done.stderr
    assert not check or done.returncode == 0, text[-4000:]
    return text


def test_another_workflow_takes_it_as_a_module_with_a_configuration_of_its_own(tmp_path):
    other_workflow(tmp_path, prefix="brain/", more='prefix: "brain/"')
    run(tmp_path)
    metrics = pd.read_csv(tmp_path / "brain/results/metrics.csv")
    assert set(metrics["model"]) == {"memory_bank", "dpmm_demo"}
    assert len((tmp_path / "best.txt").read_text().splitlines()) == 1
    assert not (tmp_path / "results").exists()
    assert "Nothing to be done" in run(tmp_path)
    run(tmp_path, "--report", "report.html")
    assert "Unsupervised anomaly detection in medical images" in (tmp_path / "report.html").read_text()


def test_a_module_keeps_what_runs_locally_and_its_own_targets(tmp_path):
    other_workflow(tmp_path)
    with (tmp_path / "Snakefile").open("a") as file:
        file.write('print("local:", *sorted(workflow._localrules))\n')  # a dry run does not say
    text = run(tmp_path, "-n", "dinodp_all")
    local = next(line for line in text.splitlines() if line.startswith("local: ")).split()
    assert {"dinodp_all", "dinodp_collect_metrics", "dinodp_make_table"} <= set(local)
    assert "dinodp_fit_model" not in local
    assert "rule dinodp_write_report:" in text
    assert "rule best:" not in text


def test_the_configuration_of_a_module_is_checked(tmp_path):
    other_workflow(tmp_path, config={"anomalies": {"runs": {}}})
    assert "Configuration, the top level: unknown key 'runs'" in run(tmp_path, "-n", check=False)


def test_the_catalogs_place_runs_the_same(tmp_path):
    assert run(tmp_path, "-n", "-s", str(ROOT / "workflow/Snakefile")).count("dpmm_demo/seed-0.json") > 1
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    flags = usage["mandatory-flags"]["flags"].split()
    assert "--configfile" in flags
    assert (ROOT / flags[1]).is_file()
    assert usage["software-stack-deployment"]["report"] is True


def test_rules_may_come_from_an_address_where_the_library_is_installed(tmp_path):
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(ROOT))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'"http://127.0.0.1:{server.server_port}/workflow/Snakefile"'
        other_workflow(tmp_path, address, before="")
        text = run(tmp_path, "-n")
        server.shutdown()
    assert "rule dinodp_fit_model:" in text


def test_the_command_runs_it_from_any_folder(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(CONFIG["anomalies"]))
    text = run(tmp_path, "results/data/phantoms/manifest.csv", "--configfile", "mine.yaml", program=PROGRAM)
    assert "1 of 1 steps (100%) done" in text
    assert (tmp_path / "results/data/phantoms/manifest.csv").is_file()


PROGRAM = ("-m", "dinodp.cli", "benchmark")


@pytest.mark.parametrize("own", [False, True])
def test_the_command_knows_the_projects_run_files(tmp_path, own):
    if own:
        (tmp_path / "config").mkdir()
        (tmp_path / "config/paper.yaml").write_text(yaml.safe_dump(CONFIG["anomalies"]))
    text = run(tmp_path, "-n", "--configfile", "config/paper.yaml", program=PROGRAM)
    assert ("brats2021" in text) != own
