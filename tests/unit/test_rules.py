"""What a cluster must know of every rule."""

import re

import pytest
import yaml


def rules(root):
    for file in sorted((root / "rules").glob("*.smk")):
        for text in re.split(r"(?m)^rule ", file.read_text())[1:]:
            yield text.split(":")[0], text


def test_every_rule_asks_for_memory_and_time_that_grow_with_the_attempt(root):
    asked = {name: re.findall(r"(mem_mb|runtime)=(?:growing\(|scoring_memory)", text) for name, text in rules(root)}
    assert len(asked) > 15
    assert {name for name, found in asked.items() if found != ["mem_mb", "runtime"]} == set()


def test_every_rule_has_a_log_and_an_environment(root):
    for name, text in rules(root):
        assert "    log:" in text, name
        assert re.search(r'conda:\s+("\.\./envs/\w+\.yaml"|TORCH)', text), name


@pytest.mark.parametrize("key", ["retries", "rerun-incomplete", "slurm-status-attempts", "default-resources"])
def test_the_profile_for_slurm(root, key):
    profile = yaml.safe_load((root / "profiles/slurm/config.yaml").read_text())
    assert profile["executor"] == "slurm"
    assert profile[key]
