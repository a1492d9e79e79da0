"""The keys of a data set's catalog entry."""

from collections.abc import Mapping
from typing import Any

from dinodp.errors import InputError

REQUIRED = object()


def complete(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Options with defaults filled in. Raises InputError for an unknown key or one that is missing."""
    given = {key: value for key, value in options.items() if key != "source"}
    if unknown := sorted(set(given) - set(defaults)):
        raise InputError(
            f"unknown key {unknown[0]!r} for the source {options.get('source')!r}; it has {', '.join(defaults)}."
        )
    result = {**defaults, **given}
    if missing := [key for key, value in result.items() if value is REQUIRED]:
        raise InputError(f"the key {missing[0]!r} is missing; the source {options.get('source')!r} needs it.")
    return result
