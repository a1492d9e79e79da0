"""What of the configuration each result must be made for, by its place.

Files of a run are tied to each other by digests. That does not tell them from a whole set of files of another run, so
each also says what it was made for: names and digests of the options that decide it, level by level (data set,
embedding, model, ...). The workflow tells its jobs what it asks for; they write it, and compare what they read with it.
Outside the workflow nothing is asked for.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dinodp.errors import InputError

_asked: dict[str, Any] = {}


def ask(wanted: Mapping[str, Any]) -> None:
    """Tell this process what is asked for, as `dinodp.configuration.asked.asked_for` gives it; nothing if empty."""
    _asked.clear()
    _asked.update(wanted)


def asked() -> dict[str, Any]:
    """What `ask` was told, for another process."""
    return dict(_asked)


def made_for(path: Path) -> dict[str, str]:
    """What a result at this place must be made for, by level; empty where nothing is asked for."""
    for pattern, levels in _asked.get("places", {}).items():
        names = names_in(pattern, path)
        if names is not None:
            return {level: _said(level, names.get(of, "")) for level, of in levels.items()}
    return {}


def _said(level: str, name: str) -> str:
    digest = _asked["levels"].get(level, {}).get(name, "")
    return f"{name} {digest}".strip()


def require_made_for(path: Path, found: Mapping[str, str]) -> None:
    """Raise InputError unless a file was made for what is asked of its place."""
    wanted = made_for(path)
    other = sorted(level for level in wanted if found.get(level) != wanted[level])
    if other:
        raise InputError(
            f"{path} was made for another {', '.join(other)} than the configuration asks for here: it is of another "
            "run; delete it and run again."
        )


def names_in(pattern: str, path: Path | str) -> dict[str, str] | None:
    """The names in the path of a result, wherever its ``results`` folder lies; None for another path."""
    found = _expression(pattern).search(Path(path).as_posix())
    return None if found is None else found.groupdict()


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"{(\w+)}", pattern)
    names = (f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts))
    return re.compile("(?:^|/)" + "".join(names) + "$")
