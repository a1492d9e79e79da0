"""One self-contained HTML page: every scan with its highest slices, scores and largest regions."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from dinodp.datasets.subjects import subjects_of
from dinodp.datasets.volumes import AXES
from dinodp.errors import visible
from dinodp.jobs.files import write_text
from dinodp.report import pages
from dinodp.report.pictures import data_address
from dinodp.scans.detecting.model_file import FittedDetector
from dinodp.scans.writing.prediction import PredictionOptions, Result, threshold_value
from dinodp.scans.writing.stack import LEVELS
from dinodp.scans.writing.views import SAGITTAL, Scale

NOTE = "A score says how far a scan lies from the healthy scans of the model; it is no diagnosis."
TEMPLATES = Path(__file__).with_name("templates")


def write_gallery(
    path: Path, results: Sequence[Result], detector: FittedDetector, options: PredictionOptions, model: str
) -> None:
    """Write the page; it needs no other file and no network."""
    settings, healthy = detector.scorer.settings, detector.scorer.preparation.healthy
    limit = threshold_value(detector, options.threshold)
    volumes = healthy.kind == "volume"
    page = _environment().get_template("gallery.html").render(
        note=NOTE,
        model=model,
        backbone=detector.scorer.embedder.backbone.provenance()["backbone"],
        score=settings.score_name,
        threshold=options.threshold,
        limit=limit,
        held_out=len(detector.calibration.scan_scores),
        axis=settings.axis if volumes else "",
        radiological=volumes and AXES[settings.axis] != SAGITTAL,
        scale=(scale := Scale.of(detector.calibration, limit)),
        bar=_colour_bar(scale),
        scans=(scored := [item for item in results if not item.failed]),
        stacks=[_stack(item) for item in scored],
        priors=priors([item.name for item in scored], options.subject_pattern),
        levels=LEVELS - 1,
        failed=[item for item in results if item.failed],
    )  # fmt: skip
    write_text(path, page)


def priors(names: Sequence[str], pattern: str | None) -> list[int | None]:
    """For each scan the number of the one before it, by name, of the same subject; None for the first of a subject."""
    found: list[int | None] = [None] * len(names)
    latest: dict[str, int] = {}
    subjects = subjects_of(names, pattern)
    for number in sorted(range(len(names)), key=lambda index: names[index]):
        found[number] = latest.get(subjects[number])
        latest[subjects[number]] = number
    return found


def _stack(result: Result) -> str:
    """A stack as JSON for the page; of an image null."""
    return json.dumps(None if result.stack is None else asdict(result.stack))


def _colour_bar(scale: Scale) -> str:
    return data_address(Image.fromarray(np.repeat(scale.colours, 8, axis=0)), "png", {})


def _environment() -> jinja2.Environment:
    environment = pages.environment(TEMPLATES)
    environment.filters["visible"] = visible
    environment.filters["short"] = lambda value: f"{value:.4g}".replace("-", "−")
    return environment
