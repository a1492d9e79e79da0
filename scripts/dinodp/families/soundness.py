"""What the state of a model may hold: which arrays, of which shapes, within which limits."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dinodp.errors import InputError


class Stored(NamedTuple):
    """One array of a state: its ``shape`` (None: any length), and the least and the greatest value of it.

    ``positive``: zero is not allowed either. Values are finite; ``kind`` is ``f`` (floats) or ``i`` (integers).
    """

    shape: tuple[int | None, ...]
    least: float = -math.inf
    most: float = math.inf
    positive: bool = False
    kind: str = "f"


Layout = Mapping[str, Stored]


def require_sound(state: Mapping[str, Any], layout: Layout | None) -> None:
    """Raise InputError unless the state is what ``layout`` says; without one its values must be finite."""
    if layout is not None:
        _require_names(state, layout)
    for name, value in state.items():
        values = np.asarray(value)
        if layout is not None:
            _require_kind(name, values, layout[name])
        if not np.isfinite(values).all():
            raise InputError(f"The state's {name} holds values that are not finite.")
        if layout is not None:
            _require_range(name, values, layout[name])


def _require_names(found: Iterable[str], layout: Layout) -> None:
    if missing := sorted(set(layout) - set(found)):
        raise InputError(f"The state lacks {', '.join(missing)}.")
    if unknown := sorted(set(found) - set(layout)):
        raise InputError(f"The state holds {', '.join(unknown)}, which a model of this family does not have.")


def _require_kind(name: str, values: npt.NDArray[Any], stored: Stored) -> None:
    fits = len(values.shape) == len(stored.shape) and all(
        length is None or length == side for length, side in zip(stored.shape, values.shape, strict=True)
    )
    if not fits or values.size == 0:
        raise InputError(f"The state's {name} has the shape {values.shape}, but {_words(stored.shape)} is needed.")
    if values.dtype.kind != stored.kind:
        raise InputError(f"The state's {name} is of type {values.dtype}; {_kind(stored)} are needed.")


def _require_range(name: str, values: npt.NDArray[Any], stored: Stored) -> None:
    low, high = float(values.min()), float(values.max())
    if low < stored.least or high > stored.most or (stored.positive and low <= 0):
        limits = "above 0" if stored.positive else f"from {stored.least:g} to {stored.most:g}"
        raise InputError(f"The state's {name} runs from {low:g} to {high:g}; it must lie {limits}.")


def _words(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if side is None else str(side) for side in shape)})"


def _kind(stored: Stored) -> str:
    return "floats" if stored.kind == "f" else "integers"
