import subprocess
import sys

import pytest
import yaml


def test_the_configuration_page_matches_the_schema(root):
    command = [sys.executable, "config/schemas/describe.py"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
    assert printed == (root / "config/README.md").read_text()


@pytest.mark.parametrize("name", ["demo", "paper", "oasis", "brats2015"])
def test_run_files_name_entries_of_the_catalog(root, name):
    catalog = yaml.safe_load((root / "config/catalog.yaml").read_text())
    run = yaml.safe_load((root / f"config/{name}.yaml").read_text())["run"]
    for kind in ("datasets", "embeddings", "models"):
        assert set(run[kind]) <= set(catalog[kind])


def test_numbers_of_the_catalog_are_numbers(root):
    catalog = yaml.safe_load((root / "config/catalog.yaml").read_text())
    assert {type(model["reg_covar"]) for model in catalog["models"].values() if "reg_covar" in model} == {float}
