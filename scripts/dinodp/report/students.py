"""The students of a run as the page shows them: whose they are, what they cost, and how their loss fell."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dinodp.jobs.files import read_json
from dinodp.jobs.origin import read_result
from dinodp.options import places

WIDTH, HEIGHT = 200, 80  # of the drawing of the loss


def student_rows(descriptions: Sequence[Path], costs: Sequence[Path]) -> list[dict[str, Any]]:
    """One row per student; ``minutes`` of CPU time, ``loss`` over the rounds and as the points of an SVG polyline."""
    return [_row(path, read_json(path), read_result(cost)) for path, cost in zip(descriptions, costs, strict=True)]


def _row(path: Path, made: dict[str, Any], cost: dict[str, Any]) -> dict[str, Any]:
    loss = [float(value) for value in made["history"]["loss"]]
    return {
        **places.parse(places.STUDENT_FILE, path),
        "teacher": made["teacher"]["backbone"],
        "images": len(made["data"]["images"]),
        "rounds": len(loss),
        "minutes": cost["cpu_seconds"] / 60,
        "last": loss[-1],
        "points": polyline(loss),
    }


def polyline(values: Sequence[float]) -> str:
    """Values from left to right, from 0 to the highest; a single one is a level line."""
    drawn = [values[0], *values] if len(values) == 1 else values
    step, top = WIDTH / (len(drawn) - 1), max(drawn) or 1.0
    return " ".join(f"{index * step:.1f},{HEIGHT * (1 - value / top):.1f}" for index, value in enumerate(drawn))
