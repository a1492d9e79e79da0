"""The workflow through a real SLURM on this machine: the whole DAG, and what clusters do to jobs.

The tests share one cluster and run in this order, in one process; every call of snakemake is bounded in time.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import slurm
import yaml
from project_copy import ROOT, copy_project, small_run

TINY = small_run((16, 8, 8), bootstrap_resamples=20, tables=["table1"], figures=["anomaly_maps"])
FAULTS = """
rule all:
    input: "out_of_time.txt", "killed.txt", "through_outage.txt", "after.txt", "on_gpu.txt"

# The first attempt has one minute and wants five; the second has two and is quick.
rule out_of_time:
    output: "out_of_time.txt"
    resources: runtime=lambda wildcards, attempt: attempt, mem_mb=lambda wildcards, attempt: 100 * attempt
    shell: "if [ {resources.runtime} = 1 ]; then sleep 300; fi; echo {resources.mem_mb} > {output}"

rule killed:
    output: "killed.txt"
    shell: "echo run >> killed.log; sleep $((3 + 20 * (2 - $(wc -l < killed.log)))); cp killed.log {output}"

rule through_outage:
    output: "through_outage.txt"
    shell: "echo run >> outage.log; sleep 25; cp outage.log {output}"

rule on_gpu:
    output: "on_gpu.txt"
    resources: gpu=1
    shell: "echo $CUDA_VISIBLE_DEVICES > {output}"

rule after:
    input: "through_outage.txt"
    output: "after.txt"
    shell: "cp {input} {output}"
"""

STARTED = []  # every snakemake, so that none outlives the cluster

pytestmark = pytest.mark.skipif(slurm.missing() is not None, reason=str(slurm.missing()))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = slurm.Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        for process in STARTED:
            kill(process)
        cluster.stop()


def write_profile(folder, **lines):
    """profiles/slurm as a site would copy it: no conda here, no accounting, quick looks at the queue."""
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    del profile["use-conda"]
    profile |= {
        "slurm-status-command": "squeue",
        "slurm-no-account": True,
        "slurm-init-seconds-before-status-checks": 4,
        "latency-wait": 10,
        **lines,
    }
    target = folder / "site/config.yaml"
    target.parent.mkdir()
    target.write_text(yaml.safe_dump(profile))


def start(cluster, folder, *arguments, seconds=600):
    """Start snakemake with the profile, bounded by timeout(1), its output in ``<folder>/terminal.log``."""
    environment = dict(cluster.environment)
    first, rest = environment["PATH"].split(":", 1)
    environment["PATH"] = f"{first}:{Path(sys.executable).parent}:{rest}"
    command = ["timeout", "-k", "10", str(seconds), sys.executable, "-m", "snakemake", "--workflow-profile", "site"]
    with (folder / "terminal.log").open("a") as log:
        process = subprocess.Popen(
            [*command, *arguments], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    STARTED.append(process)
    return process


def kill(process):
    """End a snakemake that still runs, with all that it started here."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def finish(process, folder):
    code, text = process.wait(), (folder / "terminal.log").read_text()
    assert code == 0, text[-4000:]
    return text


@pytest.fixture(scope="module")
def faults(cluster, tmp_path_factory):
    """The run of FAULTS goes on beside the demo's: it mostly waits."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "Snakefile").write_text(FAULTS)
    write_profile(folder, **{"set-resources": {"on_gpu": {"gpu_model": "a100"}}})
    return folder, start(cluster, folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = copy_project(tmp_path_factory.mktemp("project"), "tiny", TINY)
    write_profile(folder)
    return folder


def rules():
    """The names of all rules, but those that only a run with shards has."""
    files = [*(ROOT / "rules").glob("*.smk"), ROOT / "Snakefile"]
    text = "".join(file.read_text() for file in files if file.stem != "sharding")
    return set(re.findall(r"(?m)^rule (\w+):", text))


def job_of(folder, rule):
    """SLURM's number of the latest job of a rule, or None."""
    found = re.findall(rf"SLURM jobid (\d+) \(log: [^)]*rule_{rule}/", (folder / "terminal.log").read_text())
    return found[-1] if found else None


def test_a_killed_job_and_a_controller_that_goes_away(cluster, faults):
    folder, _ = faults
    cluster.wait(lambda: (folder / "killed.log").exists() and (folder / "outage.log").exists(), "both jobs", 60)
    cluster.call("scancel", "--signal=KILL", "--full", job_of(folder, "killed"))
    cluster.wait(lambda: (folder / "killed.log").read_text().count("run") == 2, "the retry of the killed job", 60)
    cluster.stop_controller()
    assert "Unable to contact" in subprocess.run(
        ["squeue"], env=cluster.environment, capture_output=True, text=True, check=False, timeout=60
    ).stderr
    cluster.start_controller()
    cluster.wait(lambda: cluster.call("sinfo", "-h", "-o", "%T", check=False).strip() in ("idle", "mixed"), "the node")


def test_the_whole_dag_and_a_snakemake_that_is_killed(cluster, faults, project):
    """Killed in mid-run, started again: what was done stays, the rest is done, and a third call has nothing to do."""
    arguments = ["--configfile", "config/tiny.yaml"]
    first = start(cluster, project, *arguments)
    model = project / "results/models/phantoms/classical/memory_bank/seed-0.h5"
    cluster.wait(model.exists, "the first model", 400)
    assert first.poll() is None
    kill(first)
    embeddings = project / "results/embeddings/phantoms/classical/train.h5"
    written = embeddings.stat().st_mtime_ns
    cluster.cancel(project)  # what it had submitted; the run of FAULTS goes on
    locked = start(cluster, project, *arguments)
    assert locked.wait() != 0
    assert "--unlock argument" in (project / "terminal.log").read_text()
    subprocess.run([sys.executable, "-m", "snakemake", "--unlock", *arguments], cwd=project, check=True)
    finish(start(cluster, project, *arguments), project)
    assert embeddings.stat().st_mtime_ns == written
    assert (project / "results/report.html").is_file()
    text = finish(start(cluster, project, *arguments), project)
    assert "Nothing to be done" in text
    assert text.count("\nrule embed:") == 3
    ran = set(re.findall(r"(?m)^(?:local)?rule (\w+):", text))
    assert ran == rules() - {"download_archive", "distill_backbone"}


def test_every_fault_was_overcome(faults):
    folder, process = faults
    text = finish(process, folder)
    assert (folder / "out_of_time.txt").read_text() == "200\n"
    assert re.search(r"SLURM status is: 'TIMEOUT'", text)
    assert (folder / "killed.txt").read_text() == "run\nrun\n"
    assert (folder / "after.txt").read_text() == "run\n"
    assert (folder / "on_gpu.txt").read_text().strip() in ("0", "1")
