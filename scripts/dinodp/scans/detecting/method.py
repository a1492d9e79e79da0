"""Which model own scans are fitted with: a family, a model of the catalog, or a family with options."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dinodp.errors import InputError
from dinodp.families import FAMILIES, model_options
from dinodp.families.base import ModelOptions

CATALOG = Path(__file__).parents[4] / "config/catalog.yaml"  # of the checkout; an installed package has none
DEFAULT_METHOD = "eb_mixture"
METHODS = tuple(name for name, family in FAMILIES.items() if family.FOR_OWN_SCANS)


def entry_of(method: str) -> dict[str, Any]:
    """The entry of a family without options, or of a model of the catalog. Raises InputError for an unknown name."""
    if method in METHODS:
        return {"family": method}
    catalog = _catalog_models()
    if method not in catalog:
        raise InputError(
            f"Unknown method {method!r}: choose a family, {', '.join(METHODS)}, or a model of config/catalog.yaml."
        )
    return dict(catalog[method])


def own_model(method: str | Mapping[str, Any], score: str | None) -> ModelOptions:
    """The options of a model of own scans, with one score: the chosen one, else the first of the entry or the family.

    Of the paper's mixture that is the cosine, as in the paper's table 3 for DINOv2. Raises InputError for what is not
    allowed.
    """
    entry = entry_of(method) if isinstance(method, str) else dict(method)
    model = model_options(entry, "method")
    if not model.FOR_OWN_SCANS:
        raise InputError(f"The family {model.family!r} is for the benchmark alone; it is no model of own scans.")
    return model_options({**model.plain(), **model.for_own_scans(), "scores": [score or model.scores[0]]}, "method")


def _catalog_models() -> dict[str, dict[str, Any]]:
    if not CATALOG.is_file():
        return {}
    models: dict[str, dict[str, Any]] = yaml.safe_load(CATALOG.read_text(encoding="utf-8"))["models"]
    return models
