"""Go on with the fit of a detector: learn from more healthy scans, calibrate on some of them."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dinodp.errors import InputError
from dinodp.families.stages import continued_state
from dinodp.jobs.logs import logger, progress
from dinodp.scans.detecting.calibration import Calibration
from dinodp.scans.detecting.fitting import UnreadScan, calibrate, embed_scans, say_outlying, split_subjects
from dinodp.scans.detecting.model_file import FittedDetector
from dinodp.scans.detecting.origin import Update
from dinodp.scans.detecting.scoring import Scorer


def update_detector(old: FittedDetector, scans: Sequence[UnreadScan], model_sha256: str) -> FittedDetector:
    """A detector that has also learnt from new healthy scans, of which a share is held out for its thresholds.

    How scans are prepared stays as it was. Scans that the model was fitted or calibrated on are left out.
    ``model_sha256`` is the digest of the old model's file. Raises InputError for a family that cannot go on, for fewer
    than two new subjects, and for a scan that is unlike those of the fit.
    """
    settings, embedder = old.scorer.settings, old.scorer.embedder
    new, digests = _new_scans(old, scans)
    train, held_out = split_subjects(new, settings)
    with tempfile.TemporaryDirectory(prefix="dinodp-") as folder:
        tokens = [
            embed_scans(part, what, embedder, old.scorer.preparation, Path(folder))
            for part, what in ((train, "embed"), (held_out, "embed held-out"))
        ]
        fitted = continued_state(
            settings.model,
            old.state,
            *tokens,
            n_before=old.origin.slices,
            seed=settings.seed + 1 + len(old.origin.updates),
            device=str(embedder.device),
        )
        outlying = say_outlying([*train, *held_out], tokens, settings)
        scorer = Scorer.of(old.scorer.preparation, embedder, fitted.state)
        before, after = (calibrate(held_out, tokens[1], item) for item in (old.scorer, scorer))
        for file in tokens:
            file.close()
    limits = old.calibration.thresholds
    rates = [{name: _share_above(found, limit) for name, limit in limits.items()} for found in (before, after)]
    update = Update(model_sha256, len(train), len(held_out), dict(limits), *rates)
    origin = old.origin.updated(update, tokens[0].n_images, outlying, digests)
    history = _joined(old.history, fitted.history)
    return FittedDetector(scorer, after, origin, fitted.state, history, old.weights)


def _new_scans(old: FittedDetector, scans: Sequence[UnreadScan]) -> tuple[list[UnreadScan], list[str]]:
    """Those that are not in the model yet, and the digests of their voxels."""
    known, new, digests = set(old.origin.scans_sha256), list[UnreadScan](), list[str]()
    preparation = old.scorer.preparation
    for unread in progress(scans, "read", unit="scan"):
        scan = unread.read(preparation.healthy.axes)
        if scan.digest in known:
            logger.warning("%s is in the model already, and is left out.", unread.name)
            continue
        preparation.of_new(scan, preparation.settings.slice_step)
        known.add(scan.digest)
        new.append(unread)
        digests.append(scan.digest)
    if not new:
        raise InputError(f"All {len(scans)} scans are in the model already: there is nothing to learn.")
    return new, digests


def _share_above(calibration: Calibration, limit: float) -> float:
    """Which share of the held-out voxels exceeds a score, in steps of 1 %."""
    return float(calibration.tail.probability(np.array([limit], dtype=np.float32))[0])


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """One history after the other."""
    return {name: np.append(first[name], values) if name in first else values for name, values in second.items()}


def moved(detector: FittedDetector) -> list[dict[str, Any]]:
    """How far the last update moved each threshold: a row for each; none without an update."""
    if not detector.origin.updates:
        return []
    update, now = detector.origin.updates[-1], detector.calibration.thresholds
    return [
        {
            "threshold": name,
            "before": limit,
            "now": now[name],
            "moved": now[name] - limit,
            "above the old one, old model": f"{update.before[name]:.1%}",
            "above the old one, new model": f"{update.after[name]:.1%}",
        }
        for name, limit in update.thresholds.items()
    ]
