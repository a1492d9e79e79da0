"""Families of models. A module here with ``family: Literal["name"] = "name"`` in a subclass of `ModelOptions` is one of
them and is found by itself. Free of torch: the workflow reads the options when it builds the DAG.
"""

import pkgutil
from collections.abc import Mapping
from typing import Any

from dinodp.families.base import ModelOptions
from dinodp.options.base import chosen
from dinodp.options.finding import kinds_in


def _families() -> dict[str, type[ModelOptions]]:
    kinds = kinds_in(__name__, pkgutil.iter_modules(__path__), ModelOptions, "    family: Literal")
    return {str(kind.model_fields["family"].default): kind for kind in kinds if kind.is_complete()}


FAMILIES = dict(sorted(_families().items()))


def model_options(entry: Mapping[str, Any], where: str = "The model") -> ModelOptions:
    """The options of a model's catalog entry. Raises InputError, beginning with ``where``, for whatever is wrong."""
    return chosen(entry, "family", FAMILIES, where).read(entry, where)


def written_options(config: Mapping[str, Any]) -> ModelOptions:
    """The options in the configuration of a model file."""
    return model_options({key: value for key, value in config.items() if key != "seed"})
