"""JSON that others wrote: read in full, and refused where it is none that this project knows."""

import json
import math
from pathlib import Path
from typing import Any

from dinodp.errors import InputError, one_line

DEEPEST = 32  # objects within objects


def parsed_json(text: str | bytes, path: Path) -> dict[str, Any]:
    """The object that a JSON text from ``path`` holds.

    Raises InputError for another text, for NaN and infinity, and for objects nested deeper than this project's.
    """
    try:
        content = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise InputError(f"{path} holds JSON that cannot be read ({one_line(error)}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds JSON that is no object.")
    if _depth(content) > DEEPEST:
        raise InputError(f"{path} holds JSON that is nested more than {DEEPEST} deep.")
    return content


def _finite(text: str) -> float:
    number = float(text)  # 1e999 is infinite
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no finite number")
    return number


def _depth(content: Any) -> int:
    """How deep objects and lists are nested; without recursion."""
    deep, level = 0, [content]
    while level := [item for item in level if isinstance(item, dict | list)]:
        deep += 1
        level = [value for item in level for value in (item.values() if isinstance(item, dict) else item)]
    return deep
