"""Entries of the configuration as frozen types, and what is wrong with one in one sentence."""

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from dinodp.errors import InputError


class Options(BaseModel):
    """Keys of one entry with their types, defaults, units and descriptions (`option`).

    Unknown keys, wrong types and values out of range are refused, and numbers are neither texts nor booleans. A null is
    the default: so an overlay takes back what the catalog says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def read(cls, content: object, where: str) -> Self:
        """The options of an entry as YAML gave it. Raises InputError, which begins with ``where``."""
        try:
            text = json.dumps(_without_nulls(content), default=str)
        except (TypeError, ValueError, RecursionError) as error:  # YAML can say both
            raise InputError(f"{where}: a part of it holds itself, or has keys that are no texts.") from error
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(_sentence(cls, error, where)) from None

    @classmethod
    def whose(cls) -> str:
        """Whose keys they are, in a sentence about one of them, such as " of the family 'dpmm'"."""
        return ""

    def plain(self) -> dict[str, Any]:
        """All keys as plain values that `read` takes, defaults filled in; those that are None are left out."""
        return self.model_dump(mode="json", exclude_none=True)

    def decisive(self) -> dict[str, Any]:
        """`plain` without the keys that change no result (``changes_result=False``)."""
        idle = {name for name, field in type(self).model_fields.items() if not _extra(field)["changes_result"]}
        return self.model_dump(mode="json", exclude_none=True, exclude=idle)


Kind = TypeVar("Kind", bound=Options)


def chosen(entry: object, key: str, kinds: Mapping[str, type[Kind]], where: str) -> type[Kind]:
    """The kind of options that an entry names under ``key``. Raises InputError, which lists those that there are."""
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: {shown(entry)} is no mapping of keys to values.")
    allowed = f"choose one of {', '.join(kinds)}"
    if entry.get(key) is None:
        raise InputError(f"{where}.{key}: the key is missing; {allowed}.")
    if not isinstance(entry[key], str) or entry[key] not in kinds:
        raise InputError(f"{where}.{key}: {shown(entry[key])} is not known; {allowed}.")
    return kinds[entry[key]]


def option(default: Any, text: str, *, unit: str = "", changes_result: bool = True, **limits: Any) -> Any:
    """A key of an entry: default (``...``: it must be given), description, unit, and limits as pydantic's Field has.

    ``changes_result=False``: no result depends on it, so that a change of it makes nothing anew.
    """
    extra: Any = {"unit": unit, "changes_result": changes_result}
    return Field(default, description=text, json_schema_extra=extra, **limits)


def _without_nulls(content: object) -> object:
    """The content without keys whose value is null, at any depth of mappings."""
    if not isinstance(content, Mapping):
        return content
    return {key: _without_nulls(value) for key, value in content.items() if value is not None}


def _extra(field: FieldInfo) -> dict[str, Any]:
    return {"unit": "", "changes_result": True, **(field.json_schema_extra or {})}  # type: ignore[dict-item]


def unit_of(field: FieldInfo) -> str:
    """The unit of a key, or an empty text."""
    return str(_extra(field)["unit"])


def allowed_values(field: FieldInfo) -> str:
    """The values that a key may take, in words."""
    return " ".join([_type_in_words(field.annotation), *_limits(field.metadata)])


def _limits(metadata: Iterable[Any]) -> list[str]:
    return [
        f"{sign} {getattr(item, name)}"
        for entry in metadata
        for item in (entry.metadata if isinstance(entry, FieldInfo) else [entry])
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
        if getattr(item, name, None) is not None
    ]


def _type_in_words(kind: Any) -> str:
    parts = get_args(kind)
    if get_origin(kind) is Annotated:
        return " ".join([_type_in_words(parts[0]), *_limits(parts[1:])])
    if get_origin(kind) is Literal:
        return " \\| ".join(f"`{value}`" for value in parts)
    if get_origin(kind) is tuple:
        words = [_type_in_words(part) for part in parts if part is not ...]
        return f"list of {words[0]}" if parts[-1] is ... else f"[{', '.join(words)}]"
    if inspect.isclass(kind) and issubclass(kind, Options):
        return "mapping of " + ", ".join(f"`{name}`" for name in kind.model_fields)
    if get_origin(kind) is dict or get_origin(kind) is Mapping:
        return f"mapping of names to {_type_in_words(parts[1])}"
    if parts:  # a union; None is the default and needs no word
        return " or ".join(_type_in_words(part) for part in parts if part is not type(None))
    names = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


# What is wrong, in words. The keys are pydantic's names of errors.

SENTENCES = {
    "missing": "the key is missing",
    "int_type": "{value} is no integer",
    "int_parsing": "{value} is no integer",
    "int_from_float": "{value} is no integer",
    "float_type": "{value} is no number",
    "bool_type": "{value} is neither true nor false",
    "string_type": "{value} is no text",
    "tuple_type": "{value} is no list",
    "dict_type": "{value} is no mapping",
    "model_type": "{value} is no mapping of keys to values",
    "model_attributes_type": "{value} is no mapping of keys to values",
    "none_required": "{value} is not allowed; leave the key out",
    "finite_number": "{value} is not finite",
    "greater_than": "{value} is not above {gt}",
    "greater_than_equal": "{value} is below the least allowed, {ge}",
    "less_than": "{value} is not below {lt}",
    "less_than_equal": "{value} is above the largest allowed, {le}",
    "literal_error": "{value} is not allowed; choose {expected}",
    "too_short": "{value} has too few values; at least {min_length} must be given",
    "too_long": "{value} has too many values; at most {max_length} may be given",
    "string_pattern_mismatch": "{value} does not match {pattern}",
    "value_error": "{error}",
}


def _sentence(cls: type[Options], error: ValidationError, where: str) -> str:
    """The first thing that is wrong: which key, which value, what is allowed. A misspelt key before a missing one."""
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place, kind = first["loc"], first["type"]
    if kind == "extra_forbidden":
        known = ", ".join(_keys_at(cls, place[:-1]))
        return f"{'.'.join(map(str, (where, *place[:-1])))}: unknown key {place[-1]!r}{cls.whose()}; it has {known}."
    values = {**first.get("ctx", {}), "value": shown(first["input"])}
    said = SENTENCES.get(kind, first["msg"].lower().replace("{", "(")).format(**values)
    hint = "; YAML reads 1e-6 as a text: write 1.0e-6" if kind == "float_type" and _is_number(first["input"]) else ""
    return f"{'.'.join(map(str, (where, *place)))}: {said.rstrip('.')}{hint}."


def _keys_at(cls: type[Options], place: tuple[int | str, ...]) -> Iterator[str]:
    """The keys of the options, or of the options inside them, that a place leads to."""
    kind: Any = cls
    for step in place:
        fields = getattr(kind, "model_fields", {})
        kinds = [fields[step].annotation] if step in fields else get_args(kind)
        nested = [part for known in kinds for part in (known, *get_args(known)) if inspect.isclass(part)]
        kind = next((part for part in nested if issubclass(part, Options)), kind)
    return iter(kind.model_fields)


def shown(value: object) -> str:
    """A value in a sentence, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return isinstance(value, str)
