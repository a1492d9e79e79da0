"""Run files over the catalog, as the Snakefile reads them. Needs Snakemake."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snakemake.common.configfile import load_configfile
from snakemake.utils import update_config

from dinodp.errors import InputError, one_line
from dinodp.jobs.snakefile import ROOT


def over_catalog(given: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration over the catalog; where it names nothing to run, over the demo. ``given`` stays as it is."""
    merged: dict[str, Any] = load_configfile(ROOT / "config/catalog.yaml")
    if "run" not in given:
        update_config(merged, load_configfile(ROOT / "config/demo.yaml"))
    update_config(merged, given)
    return merged


def merged_files(paths: Sequence[Path]) -> dict[str, Any]:
    """Run files, each over those before it, over the catalog. Raises InputError for what is no mapping in YAML."""
    given: dict[str, Any] = {}
    for path in paths:
        try:
            update_config(given, load_configfile(path))
        except Exception as error:  # of Snakemake and of the readers of YAML and JSON
            raise InputError(f"The run file {path} cannot be read ({one_line(error)}).") from error
    return over_catalog(given)
