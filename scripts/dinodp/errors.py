"""The one exception that means: the input is at fault, not the program."""


import math


class InputError(ValueError):
    """A user's mistake, told in one sentence: what was given, what is allowed, where.

    Scripts and the command line print the sentence without a traceback and exit with status 1.
    """


def one_line(error: Exception) -> str:
    """What an exception of another library says, on one line and without a full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def require_finite(name: str, *values: float) -> None:
    """Raise InputError when one of ``values`` is NaN or infinite."""
    for value in values:
        if not math.isfinite(value):
            raise InputError(f"{name} is {value}; it must be a finite number.")


def require_known(kind: str, name: object, allowed: object) -> None:
    """Raise InputError unless ``name`` is one of ``allowed`` (an iterable of names)."""
    names = [str(item) for item in allowed]  # type: ignore[attr-defined]
    if str(name) not in names:
        raise InputError(f"Unknown {kind} {name!r}: choose one of {', '.join(sorted(names))}.")
