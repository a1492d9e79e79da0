import subprocess
import sys

import pytest
import yaml
from conftest import ROOT


def test_the_configuration_page_matches_the_schema(root):
    command = [sys.executable, "config/schemas/describe.py"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
    assert printed == (root / "config/README.md").read_text()


def test_no_description_of_the_schema_is_cut_at_a_comma(root):
    """Unquoted text between braces ends at a comma, and what follows becomes a key without a value."""

    def keys_without_value(schema, path=""):
        items = schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
        for key, value in items:
            yield from [f"{path}/{key}"] if value is None else keys_without_value(value, f"{path}/{key}")

    assert list(keys_without_value(yaml.safe_load((root / "config/schemas/config.schema.yaml").read_text()))) == []


RUN_FILES = sorted(path.stem for path in (ROOT / "config").glob("*.yaml") if path.stem != "catalog")


@pytest.mark.parametrize("name", RUN_FILES)
def test_run_files_name_entries_of_the_catalog(root, name):
    catalog = yaml.safe_load((root / "config/catalog.yaml").read_text())
    content = yaml.safe_load((root / f"config/{name}.yaml").read_text())
    run = content["run"]
    for kind in ("datasets", "embeddings", "models"):
        known = {**catalog[kind], **content.get(kind, {})}
        assert set(run[kind]) <= set(known)
    assert set(run.get("figure_models", [])) <= set(run["models"])


def test_variants_of_the_mixture_change_what_the_documentation_says(root):
    """One choice each, from dpmm_diag_spread; exceptions are named in docs/method.md."""
    models = yaml.safe_load((root / "config/catalog.yaml").read_text())["models"]
    names = yaml.safe_load((root / "config/variants.yaml").read_text())["run"]["models"]
    start = models["dpmm_diag_spread"]
    changed = {
        name: {key for key in {*start, *models[name]} if start.get(key) != models[name].get(key)}
        for name in names
        if models[name]["family"] == "dpmm" and name != "dpmm_diag_spread"
    }
    assert changed.pop("dpmm_full") == {"covariance", "reg_covar"}
    assert {name: len(keys) for name, keys in changed.items()} == dict.fromkeys(changed, 1)
    assert len(changed) > 10


def test_revisions_are_commits(root):
    embeddings = yaml.safe_load((root / "config/catalog.yaml").read_text())["embeddings"]
    revisions = [entry["revision"] for entry in embeddings.values() if "revision" in entry]
    assert all(len(revision) == 40 and int(revision, 16) for revision in revisions)


def test_numbers_of_the_catalog_are_numbers(root):
    catalog = yaml.safe_load((root / "config/catalog.yaml").read_text())
    assert {type(model["reg_covar"]) for model in catalog["models"].values() if "reg_covar" in model} == {float}
