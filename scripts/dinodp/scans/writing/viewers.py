"""Colour tables, windows and scripts with which viewers of volumes show maps as the gallery does."""

from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt

from dinodp.jobs.files import write_text
from dinodp.scans.writing.views import OUTLINE, Scale

VIEWERS = "viewers"
TEMPLATES = Path(__file__).with_name("templates")
SCRIPTS = ("open_in_slicer.py", "open_in_fsleyes.sh")
TOP = 1e30  # above every score


def write_viewers(folder: Path, scale: Scale) -> list[str]:
    """Write ``viewers/`` below the folder of a prediction; the names of what was written."""
    place = folder / VIEWERS
    colours = scale.colours[0]
    texts = {
        "anomaly.cmap": _rows(colours / 255, "%.4f %.4f %.4f"),
        "anomaly.ctbl": _rows(np.column_stack([np.arange(256), np.arange(256), colours]), "%d %d %d %d %d 255"),
        "labels.ctbl": f"0 background 0 0 0 0\n1 anomalous {' '.join(map(str, OUTLINE))} 255\n",
        "labels.txt": '0 0 0 0 0 0 0 "Clear Label"\n' f'1 {" ".join(map(str, OUTLINE))} 1 1 1 "anomalous"\n',
        "window.txt": f"low {scale.low:.9g}\nhigh {scale.high:.9g}\nthreshold {scale.threshold:.9g}\n",
    }
    for name in SCRIPTS:
        template = Template((TEMPLATES / f"{name}.template").read_text(encoding="utf-8"))
        texts[name] = template.substitute(low=f"{scale.low:.9g}", high=f"{scale.high:.9g}", top=f"{TOP:g}")
    for name, text in texts.items():
        write_text(place / name, text)
    (place / SCRIPTS[1]).chmod(0o755)
    return [f"{VIEWERS}/{name}" for name in texts]


def _rows(values: npt.NDArray[Any], template: str) -> str:
    return "".join(f"{template % tuple(row)}\n" for row in values)
