"""The run files, the catalog, and the page of all keys."""

import pytest
import yaml
from conftest import ROOT
from snakemake.utils import update_config

from dinodp.configuration import Configuration
from dinodp.configuration.page import page


def test_the_configuration_page_matches_the_types(root):
    assert page() == (root / "config/README.md").read_text()


RUN_FILES = sorted(path.stem for path in (ROOT / "config").glob("*.yaml") if path.stem != "catalog")


def merged(root, name):
    """Catalog and run file as Snakemake merges them."""
    catalog = yaml.safe_load((root / "config/catalog.yaml").read_text())
    update_config(catalog, yaml.safe_load((root / f"config/{name}.yaml").read_text()))
    return catalog


@pytest.mark.parametrize("name", RUN_FILES)
def test_run_files_are_read_and_compute_where_they_can(root, name):
    run = Configuration.of(merged(root, name)).run
    assert run.device == "auto"
    assert set(run.figure_models) <= set(run.models)


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
