"""What a cluster must know of every rule."""

import re
import subprocess
import sys

import pytest
import yaml

from dinodp.options import places
from dinodp.options.finding import known_figures, known_tables


def rules(root):
    for file in sorted((root / "rules").glob("*.smk")):
        for text in re.split(r"(?m)^rule ", file.read_text())[1:]:
            yield text.split(":")[0], text


def test_every_rule_asks_for_memory_and_time_that_grow_with_the_attempt(root):
    asked = {name: re.findall(r"(mem_mb|runtime)=(?:growing\(|\w+_memory)", text) for name, text in rules(root)}
    assert len(asked) > 15
    assert {name for name, found in asked.items() if found != ["mem_mb", "runtime"]} == set()


def test_every_rule_has_a_log_and_an_environment(root):
    for name, text in rules(root):
        assert "    log:" in text, name
        assert re.search(r'conda:\s+("\.\./envs/\w+\.yaml"|TORCH)', text), name


def test_rules_that_gather_tables_run_where_snakemake_runs(root):
    """Seconds each: a cluster would take longer to start them."""
    gathering = {name: text for name, text in rules(root) if name.startswith("collect_")}
    assert len(gathering) == 4
    assert all("    localrule: True\n" in text for text in gathering.values())


@pytest.mark.parametrize(("file", "known"), [("table", known_tables()), ("figure", known_figures())])
def test_every_table_and_figure_has_a_caption_in_snakemakes_report(root, file, known):
    captions = re.findall(r'"(\w+)": "[A-Z][^"]+\."', (root / f"report/{file}.rst").read_text())
    assert sorted(captions) == known


def test_results_readme_names_every_output(root):
    """Files at the top and in data/ by their name, others by their folder."""
    text = (root / "results/README.md").read_text()
    outputs = {path for _, rule in rules(root) for path in re.findall(r'"results/([^"]+)"', rule.split("    log:")[0])}
    patterns = [value for value in vars(places).values() if isinstance(value, str) and value.startswith("results/")]
    outputs |= {pattern.removeprefix("results/") for pattern in patterns}
    assert len(outputs) > 20
    for path in outputs:
        parts = path.split("/")
        by_file = len(parts) == 1 or parts[0] == "data"
        assert (parts[-1].split(".")[0] + "." if by_file else parts[0] + "/") in text, path


@pytest.mark.parametrize("key", ["retries", "rerun-incomplete", "slurm-status-attempts", "default-resources"])
def test_the_profile_for_slurm(root, key):
    profile = yaml.safe_load((root / "profiles/slurm/config.yaml").read_text())
    assert profile["executor"] == "slurm"
    assert profile[key]


RUN = {
    "models": ["memory_bank", "memory_bank_coreset", "dpmm_demo"],
    "datasets": ["phantoms"],
    "embeddings": ["classical"],
    "title": "Memory",
    "note": "Not run.",
}


def asked_memory(root, folder, **run):
    """{(rule, model): mem_mb} of a run whose training embeddings take 1000 MiB, half of them in a shard."""
    place = folder / "results/embeddings/phantoms/classical"
    (place / "train").mkdir(parents=True)
    for name in ("train.h5", "train/shard-0-of-1.h5"):
        with (place / name).open("wb") as file:
            file.truncate(500 * 2**20)
    (folder / "run.yaml").write_text(yaml.safe_dump({"run": {**RUN, **run}}))
    command = [sys.executable, "-m", "snakemake", "-n", "-s", str(root / "Snakefile"), "--cores", "8"]
    targets = [f"results/scores/phantoms/classical/{model}/seed-0/test.h5" for model in RUN["models"]]
    text = subprocess.run(
        [*command, "--configfile", "run.yaml", "--", *targets], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    found = {}
    for block in re.split(r"(?m)^rule ", text)[1:]:
        if model := re.search(r"wildcards:.*model=(\w+)", block):
            found[block.split(":")[0], model[1]] = int(re.search(r"mem_mb=(\d+)", block)[1])
    return found


def test_memory_covers_what_is_held(root, tmp_path):
    """Banks up to 4 GiB, embeddings for a coreset twice in float32, cached embeddings once for each process."""
    assert asked_memory(root, tmp_path / "files") == {
        ("fit_model", "memory_bank"): 6000,
        ("fit_model", "memory_bank_coreset"): 6000 + 4 * 1000,
        ("fit_model", "dpmm_demo"): 6000,
        ("score", "memory_bank"): 6000 + 4096,
        ("score", "memory_bank_coreset"): 6000 + 4096 + 400,
        ("score", "dpmm_demo"): 6000,
    }
    assert asked_memory(root, tmp_path / "memory", cache="memory", processes=2) == {
        ("fit_model", "memory_bank"): 6000 + 1000,
        ("fit_model", "memory_bank_coreset"): 6000 + 1000 + 4 * 1000,
        ("fit_model", "dpmm_demo"): 2 * (6000 + 1000),
        ("score", "memory_bank"): 6000 + 4096 + 1000,
        ("score", "memory_bank_coreset"): 6000 + 4096 + 1000 + 400,
        ("score", "dpmm_demo"): 6000,
    }


def test_rules_name_results_by_their_places(root):
    """Logs are nobody's input."""
    texts = {path.name: path.read_text() for path in [root / "Snakefile", *(root / "rules").glob("*.smk")]}
    literal = {name: re.findall(r'"(results/(?!logs/)[^"]*)"', text) for name, text in texts.items()}
    assert {name: found for name, found in literal.items() if found} == {}
