"""The environments of envs/ through ``--use-conda``, with a real solver and a stand-in for conda-forge."""

import contextlib
import os
import re
import sys
from pathlib import Path

import project_copy
import pytest
import stand_in_conda
import yaml
from project_copy import ROOT, copy_project, small_run
from rattler.exceptions import InvalidMatchSpecError, SolverError
from stand_in_channel import FUTURE, OLD, build_channel, installed_version

ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
TINY = small_run((8, 4, 4), components=5, epochs=1, models=["dpmm_demo"])
# The rules on the way to results/costs.csv, each as often as it runs, by the file of their environment.
EXPECTED = {
    "data": ["accept_dataset", "prepare_dataset", "verify_dataset"],
    "torch": ["embed", "embed", "embed", "fit_model", "score"],
    "reporting": ["collect_costs"],
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Environment variables of a user with ``conda`` on PATH, whose channels are below a folder; no GPU."""
    folder = tmp_path_factory.mktemp("conda")
    build_channel(folder / "channels/conda-forge", ENVIRONMENTS)
    stand_in_conda.write_command(folder / "installation")
    return {
        **os.environ,
        "PATH": f"{folder / 'installation/bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CONDA_CHANNEL_ALIAS": f"{(folder / 'channels').as_uri()}/",
        "CONDA_PKGS_DIRS": str(folder / "packages"),
        "CONDA_OVERRIDE_CUDA": "",
    }


@pytest.fixture
def solve(environment, monkeypatch, tmp_path):
    """A solver of environment files, or of the lines of one."""
    for name in ("CONDA_CHANNEL_ALIAS", "CONDA_PKGS_DIRS", "CONDA_OVERRIDE_CUDA"):
        monkeypatch.setenv(name, environment[name])

    def solver(source):
        if not isinstance(source, Path):
            content, source = source, tmp_path / "environment.yaml"
            source.write_text(yaml.safe_dump({"channels": ["conda-forge", "nodefaults"], "dependencies": content}))
        return {record.name.source: record for record in stand_in_conda.solve(source)}

    return solver


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_an_environment_is_solved_to_the_tested_releases(path, solve, monkeypatch):
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "12.9")
    named = [spec.split()[0] for spec in yaml.safe_load(path.read_text())["dependencies"]]
    records = solve(path)
    assert {name: str(records[name].version) for name in named} == {name: installed_version(name) for name in named}


def test_what_the_packages_depend_on_is_solved_too(solve):
    assert {"tokenizers", "contourpy", "sympy"} <= set(solve(ROOT / "envs/torch.yaml"))


def test_the_build_of_torch_and_the_driver_it_needs(solve, monkeypatch):
    assert solve(ROOT / "envs/torch.yaml")["pytorch"].file_name.split("-")[2].startswith("cpu_")
    with pytest.raises(SolverError, match="__cuda"):
        solve(ROOT / "envs/torch-cuda.yaml")
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "12.8")  # as docs/cluster.md says
    assert solve(ROOT / "envs/torch-cuda.yaml")["pytorch"].file_name.split("-")[2].startswith("cuda")


def test_a_missing_pin_would_be_noticed(solve):
    assert str(solve(["python =3.11", "numpy"])["numpy"].version) == FUTURE


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        (["numpy =2.4", f"numpy ={OLD}"], "numpy"),
        (["scipy =1.17", f"numpy ={OLD}"], "scipy"),  # against what the wheel of scipy asks for
        (["numpy =2.4", "python =3.8"], "python"),
        (["pytorch 2.13.* rocm*"], "pytorch"),
    ],
)
def test_a_contradiction_is_refused(specs, said, solve):
    with pytest.raises(SolverError, match=said):
        solve(specs)


def test_what_the_solver_cannot_read_is_refused(solve):
    with pytest.raises(InvalidMatchSpecError):
        solve(["numpy =>2.4"])
    with pytest.raises(ValueError, match="pip"):
        solve(["python =3.11", {"pip": ["numpy"]}])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project, so that tests may edit its environments."""
    return copy_project(tmp_path_factory.mktemp("project"), "tiny", TINY)


def snakemake(folder, environment, *arguments, target="results/costs.csv", check=True):
    options = ["--use-conda", "--configfile", "config/tiny.yaml", *arguments]
    return project_copy.snakemake(folder, target, *options, check=check, environment=environment).text


@contextlib.contextmanager
def with_line(path, line):
    """A file with one more line for a while."""
    before = path.read_bytes()
    path.write_bytes(before + line.encode())
    try:
        yield
    finally:
        path.write_bytes(before)


def scripts_run(folder):
    """By the name of an environment's file: the rules whose scripts the environment's interpreter ran."""
    found = {path.stem: path.read_bytes() for path in (folder / "envs").glob("*.yaml")}
    ran = {}
    for copy in (folder / ".snakemake/conda").glob("*.yaml"):
        name = next((name for name, content in found.items() if content == copy.read_bytes()), "as it was before")
        log = copy.with_suffix("") / "scripts_run.txt"
        lines = log.read_text().splitlines() if log.exists() else []
        ran[name] = sorted(re.search(r"\.(\w+)\.py$", line)[1] for line in lines)
    return ran


@pytest.fixture(scope="module")
def finished(project, environment):
    return project, snakemake(project, environment)


def test_every_job_runs_in_the_environment_that_its_rule_names(finished):
    folder, text = finished
    assert (folder / "results/costs.csv").is_file()
    assert scripts_run(folder) == EXPECTED
    assert text.count("Creating conda environment") == 3


def test_environments_are_used_again_until_their_file_changes(finished, environment):
    folder, _ = finished
    text = snakemake(folder, environment, "--forcerun", "collect_costs")
    assert "Creating conda environment" not in text
    assert scripts_run(folder) == {**EXPECTED, "reporting": ["collect_costs"] * 2}
    with with_line(folder / "envs/reporting.yaml", "  - pyyaml =6.0\n"):
        text = snakemake(folder, environment)
        ran = scripts_run(folder)
    assert text.count("Creating conda environment") == 1
    again = {**EXPECTED, "reporting": ["collect_costs"], "as it was before": ["collect_costs"] * 2}
    assert ran == again


def test_an_environment_without_solution_is_said_before_anything_runs(finished, environment):
    folder, _ = finished
    made, table = set((folder / ".snakemake/conda").glob("*/")), (folder / "results/costs.csv").stat()
    with with_line(folder / "envs/reporting.yaml", f"  - numpy ={OLD}\n"):
        text = snakemake(folder, environment, check=False)
    assert "Could not create conda environment from" in text
    assert "envs/reporting.yaml" in text
    assert "numpy" in text.split("Output:")[1]
    assert set((folder / ".snakemake/conda").glob("*/")) == made
    assert (folder / "results/costs.csv").stat().st_mtime_ns == table.st_mtime_ns


def test_a_run_on_gpus_has_the_build_for_gpus(project, environment):
    """The command of docs/cluster.md for a machine without a GPU; rules that need none have the build for CPUs."""
    (project / "config/cuda.yaml").write_text(yaml.safe_dump({"run": {"device": "cuda"}}))
    arguments = ["config/cuda.yaml", "--conda-create-envs-only", "--conda-prefix", "elsewhere"]
    snakemake(project, {**environment, "CONDA_OVERRIDE_CUDA": "12.8"}, *arguments, target="all")
    builds = [path.name for path in (project / "elsewhere").glob("*/conda-meta/pytorch-*.json")]
    assert sorted(build.split("-")[2][:4] for build in builds) == ["cpu_", "cuda"]
