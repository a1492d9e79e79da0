"""Fit a detector on healthy scans: measure, embed, model, calibrate."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dinodp.backbones import load_backbone
from dinodp.datasets.subjects import compile_pattern, draw, subject_of
from dinodp.embeddings.embedder import Embedder
from dinodp.errors import InputError
from dinodp.families.stages import fit_state
from dinodp.jobs.logs import logger, progress
from dinodp.scans.detecting.calibration import Calibration
from dinodp.scans.detecting.healthy import HealthyRange, Measures, require_sensible_axis
from dinodp.scans.detecting.model_file import FittedDetector
from dinodp.scans.detecting.preparation import Preparation
from dinodp.scans.detecting.scoring import NoEmbeddings, Scorer, seen_tokens
from dinodp.scans.detecting.settings import Settings
from dinodp.scans.detecting.token_file import TokenFile
from dinodp.scans.reading.folder import read_scan
from dinodp.scans.reading.scan import Scan


@dataclass(frozen=True)
class UnreadScan:
    """A scan that is read when it is needed."""

    name: str
    read: Callable[[], Scan]


def unread_scans(scans: Sequence[tuple[str, Path]], settings: Settings) -> list[UnreadScan]:
    """Scans on disk, by name and path."""
    options = settings.reading()
    return [UnreadScan(name, partial(read_scan, name, path, options)) for name, path in scans]


def fit_detector(
    scans: Sequence[UnreadScan], settings: Settings, device: str, batch_size: int | None
) -> FittedDetector:
    """Fit on healthy scans, of which a share of the subjects is held out for calibration.

    Raises InputError for fewer than two subjects and for any scan that cannot be used.
    """
    train, held_out = split_subjects(scans, settings)
    backbone = load_backbone(
        settings.backbone,
        revision=settings.pinned_revision,
        resolution=settings.resolution,
        layers=settings.layers,
        device=device,
    )
    embedder = Embedder(backbone, batch_size)
    healthy, digest = _measure(scans, settings)
    preparation = Preparation(settings, healthy)
    with tempfile.TemporaryDirectory(prefix="dinodp-") as folder:
        tokens = [
            _embed(part, what, embedder, preparation, Path(folder))
            for part, what in ((train, "embed"), (held_out, "embed held-out"))
        ]
        if tokens[0].is_constant:
            raise InputError(f"The backbone {backbone.name} gives the same embedding for every patch: use another one.")
        _require_one_grid(tokens, settings)
        device = str(embedder.device)
        model = settings.model
        # the held-out scans calibrate thresholds: what can do without them must not be chosen by them
        chosen_by = NoEmbeddings() if model.HOLDS_OUT else tokens[1]
        fitted = fit_state(model, tokens[0], chosen_by, seed=settings.seed, device=device, self_contained=True)
        counts = {"scans": len(train), "held_out_scans": len(held_out), "slices": tokens[0].n_images}
        scorer = Scorer.of(preparation, embedder, fitted.state)
        calibration = _calibrate(held_out, tokens[1], scorer)
        for file in tokens:
            file.close()
    return FittedDetector(scorer, calibration, {**counts, "voxels_sha256": digest}, fitted.state, fitted.history)


def _require_one_grid(tokens: Sequence[TokenFile], settings: Settings) -> None:
    """Raise InputError where places are compared that are not the same in all pictures."""
    if settings.model.position is not None and len({grid for file in tokens for grid in file.grids}) > 1:
        raise InputError("The option position needs pictures of one size, but the healthy images have several.")


def split_subjects(scans: Sequence[UnreadScan], settings: Settings) -> tuple[list[UnreadScan], list[UnreadScan]]:
    """Scans to fit on and held-out ones; no subject is in both. A subject is a scan unless a pattern tells.

    Raises InputError for fewer than two subjects.
    """
    owners = subjects(scans, settings)
    distinct = sorted(set(owners))
    if len(distinct) < 2:
        found = f"All {len(scans)} healthy scans are of one subject" if len(scans) > 1 else "There is one scan"
        raise InputError(f"{found}: at least two are needed, since thresholds are calibrated on held-out ones.")
    chosen = draw(distinct, settings.held_out, settings.seed)
    parts: tuple[list[UnreadScan], list[UnreadScan]] = ([], [])
    for scan, subject in zip(scans, owners, strict=True):
        parts[subject in chosen].append(scan)
    return parts


def subjects(scans: Sequence[UnreadScan], settings: Settings) -> list[str]:
    """Whose each scan is: what the pattern finds in its name, else itself."""
    pattern = compile_pattern(settings.subject_pattern) if settings.subject_pattern else None
    return [subject_of(scan.name, pattern) if pattern else scan.name for scan in scans]


def _measure(scans: Sequence[UnreadScan], settings: Settings) -> tuple[HealthyRange, str]:
    """Ranges over all healthy scans, and a digest of their voxels. All scans that cannot be read are counted."""
    measured: list[Measures] = []
    faults: list[InputError] = []
    digest = hashlib.sha256()
    for unread in progress(scans, "read", unit="scan"):
        try:
            scan = unread.read()
            require_sensible_axis(scan, settings.axis)
            measured.append(Measures.of(scan))
            digest.update(np.ascontiguousarray(scan.values).tobytes())
        except InputError as error:
            faults.append(error)
    if faults:
        others = f"{len(faults)} of the {len(scans)} scans cannot be used; the first: " if len(faults) > 1 else ""
        raise InputError(f"{others}{faults[0]}")
    healthy = HealthyRange.over([scan.name for scan in scans], measured)
    _require_alike(scans, measured)
    return healthy, digest.hexdigest()


def _require_alike(scans: Sequence[UnreadScan], measured: Sequence[Measures]) -> None:
    """Raise InputError when the values of one healthy scan are unlike the median of all."""
    low, high = (float(np.median([getattr(item, name) for item in measured])) for name in ("low", "high"))
    typical = HealthyRange.over([""], [replace(measured[0], low=low, high=high)])
    for scan, item in zip(scans, measured, strict=True):
        typical.require_values(scan.name, item)


def _embed(
    scans: Sequence[UnreadScan], what: str, embedder: Embedder, preparation: Preparation, folder: Path
) -> TokenFile:
    """Embeddings of every ``slice_step``-th slice of the scans."""
    file = TokenFile(folder / f"{what}.tokens")
    settings = preparation.settings
    for scan, subject in zip(progress(scans, what, unit="scan"), subjects(scans, settings), strict=True):
        prepared, first = preparation.of(scan.read(), settings.slice_step), 0
        for tokens in seen_tokens(embedder, prepared, settings):
            if first == 0:
                shown = prepared.patch_foreground(embedder.backbone, tokens.shape[1:3])
            file.append(tokens, torch.from_numpy(shown[first : first + len(tokens)]), subject)
            first += len(tokens)
    return file


def _calibrate(held_out: Sequence[UnreadScan], file: TokenFile, scorer: Scorer) -> Calibration:
    """From the embeddings of the held-out scans, which are in ``file`` scan by scan."""
    voxels, scores = [], []
    first = 0
    for scan in progress(held_out, "calibrate", unit="scan"):
        prepared = scorer.preparation.of(scan.read(), scorer.settings.slice_step)
        last = first + len(prepared.chosen)
        tokens = (file.read([index]).to(scorer.embedder.device) for index in range(first, last))
        scored = scorer.score_tokens(prepared, tokens)
        first = last
        voxels.append(scored.calibration_voxels)
        scores.append(scored.score)
    logger.info("Thresholds are calibrated on %d held-out healthy scans.", len(held_out))
    return Calibration.of(voxels, scores)
