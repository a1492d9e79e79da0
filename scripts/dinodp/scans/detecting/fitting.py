"""Fit a detector on healthy scans: measure, embed, model, calibrate."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from dinodp.backbones import Backbone
from dinodp.backbones.student_file import images_seen
from dinodp.datasets.geometry import CLEAR_TILT, Affine, VolumeGeometry, common_frame, direction_in_words
from dinodp.datasets.subjects import draw, subjects_of
from dinodp.embeddings.embedder import Embedder
from dinodp.errors import InputError
from dinodp.families.stages import fit_state
from dinodp.jobs.logs import logger, progress
from dinodp.jobs.prefetch import prefetched, run_behind
from dinodp.scans.detecting.calibration import Calibration
from dinodp.scans.detecting.healthy import (
    HealthyRange,
    Measures,
    require_one_kind,
    require_sensible_axis,
    require_similar_size,
)
from dinodp.scans.detecting.look import odd_looks
from dinodp.scans.detecting.machine import Machine
from dinodp.scans.detecting.model_file import FittedDetector
from dinodp.scans.detecting.origin import Origin
from dinodp.scans.detecting.outlying import outlying, samples_of
from dinodp.scans.detecting.preparation import Preparation, PreparedScan
from dinodp.scans.detecting.scoring import NoEmbeddings, Scorer, seen_tokens
from dinodp.scans.detecting.settings import Settings
from dinodp.scans.detecting.token_file import TokenFile
from dinodp.scans.reading.folder import ReadingOptions, axes_of, read_scan
from dinodp.scans.reading.scan import Scan


@dataclass(frozen=True)
class UnreadScan:
    """A scan that is read when it is needed, with the ``frame`` of oblique volumes; ``axes`` are those of its voxels
    [4, 4], by its header (None of an image)."""

    name: str
    reader: Callable[[ReadingOptions], Scan]
    axes: Callable[[], Affine | None]
    options: ReadingOptions

    def read(self, frame: Affine | None = None) -> Scan:
        """Raises InputError for a scan that cannot be read."""
        return self.reader(replace(self.options, frame=frame))


def unread_scans(scans: Sequence[tuple[str, Path]], settings: Settings) -> list[UnreadScan]:
    """Scans on disk, by name and path."""
    options = settings.reading()
    return [
        UnreadScan(name, partial(read_scan, name, path), partial(axes_of, path, options), options)
        for name, path in scans
    ]


def fit_detector(
    scans: Sequence[UnreadScan], settings: Settings, machine: Machine
) -> FittedDetector:
    """Fit on healthy scans, of which a share of the subjects is held out for calibration.

    Raises InputError for fewer than two subjects and for any scan that cannot be used.
    """
    train, held_out = split_subjects(scans, settings)
    backbone = machine.load(settings.backbone, settings.pinned_revision, settings)
    embedder = machine.embedder(backbone)
    healthy, digests = measure(scans, settings)
    warn_of_other_data(backbone, digests)
    preparation = Preparation(settings, healthy)
    with tempfile.TemporaryDirectory(prefix="dinodp-") as folder:
        tokens = [
            embed_scans(part, what, embedder, preparation, Path(folder))
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
        outlying_scans = say_outlying([*train, *held_out], tokens, settings)
        scorer = Scorer.of(preparation, embedder, fitted.state)
        calibration = calibrate(held_out, tokens[1], scorer)
        for file in tokens:
            file.close()
    origin = Origin(len(train), len(held_out), tokens[0].n_images, outlying_scans, digests)
    return FittedDetector(scorer, calibration, origin, fitted.state, fitted.history)


def warn_of_other_data(backbone: Backbone, digests: Sequence[str]) -> None:
    """Say that a student was trained on none of these scans."""
    description = getattr(backbone, "description", None)
    if description is not None and images_seen(description, digests) == 0:
        logger.warning(
            "The student %s was trained on other scans than these (%s): what it says of them was never tested.",
            backbone.name, description["data"]["name"],
        )  # fmt: skip


def _require_one_grid(tokens: Sequence[TokenFile], settings: Settings) -> None:
    """Raise InputError where places are compared that are not the same in all pictures."""
    model = settings.model
    if (model.position or model.IS_PLACED) and len({grid for file in tokens for grid in file.grids}) > 1:
        what = "option position" if model.position else f"family {model.family!r}"
        raise InputError(f"The {what} needs pictures of one size, but the healthy images have several.")


def split_subjects(scans: Sequence[UnreadScan], settings: Settings) -> tuple[list[UnreadScan], list[UnreadScan]]:
    """Scans to fit on and held-out ones; no subject is in both. A subject is a scan unless a pattern tells.

    Raises InputError for fewer than two subjects.
    """
    owners = subjects_of([scan.name for scan in scans], settings.subject_pattern)
    distinct = sorted(set(owners))
    if len(distinct) < 2:
        found = f"All {len(scans)} healthy scans are of one subject" if len(scans) > 1 else "There is one scan"
        raise InputError(f"{found}: at least two are needed, since thresholds are calibrated on held-out ones.")
    chosen = draw(distinct, settings.held_out, settings.seed)
    parts: tuple[list[UnreadScan], list[UnreadScan]] = ([], [])
    for scan, subject in zip(scans, owners, strict=True):
        parts[subject in chosen].append(scan)
    return parts


def measure(scans: Sequence[UnreadScan], settings: Settings) -> tuple[HealthyRange, list[str]]:
    """Ranges over all healthy scans, and the digest of each one's voxels. All scans that cannot be read are counted."""
    measured: list[Measures] = []
    faults: list[InputError] = []
    digests: list[str] = []
    frame = _frame(scans, settings.axis)
    read = prefetched(_read_or_fault(unread, frame) for unread in scans)
    for scan in progress(read, "read", len(scans), unit="scan"):
        try:
            if isinstance(scan, InputError):
                raise scan
            require_sensible_axis(scan, settings.axis)
            measured.append(Measures.of(scan))
            digests.append(scan.digest)
        except InputError as error:
            faults.append(error)
    if faults:
        others = f"{len(faults)} of the {len(scans)} scans cannot be used; the first: " if len(faults) > 1 else ""
        raise InputError(f"{others}{faults[0]}")
    names = [scan.name for scan in scans]
    require_one_kind(names, measured)
    _require_alike(names, measured)
    _say_alike(names, digests)
    _say_odd(names, measured)
    healthy = HealthyRange.over(names, measured, frame)
    if healthy.kind == "image" and any(least < most for least, most in healthy.sizes):
        said = " x ".join(f"{least} to {most}" for least, most in healthy.sizes)
        logger.warning("The healthy images have %s pixels (height x width): each is scaled to one short side.", said)
    return healthy, digests


def _read_or_fault(unread: UnreadScan, frame: Affine | None) -> Scan | InputError:
    """A scan, or why it cannot be read: an error would end the reading ahead."""
    try:
        return unread.read(frame)
    except InputError as error:
        return error


def _say_alike(names: Sequence[str], digests: Sequence[str]) -> None:
    """Say which scans have the same voxels: on both sides of a calibration they make it worthless."""
    first: dict[str, str] = {}
    again = [(name, first[digest]) for name, digest in zip(names, digests, strict=True)
             if first.setdefault(digest, name) != name]  # fmt: skip
    if again:
        logger.warning(
            "%d of the %d healthy scans have the same voxels as another (such as %s and %s): only %d are different.",
            len(again), len(names), again[0][1], again[0][0], len(first),
        )  # fmt: skip


def _say_odd(names: Sequence[str], measured: Sequence[Measures]) -> None:
    """Say which volumes do not look prepared as the others."""
    for name, said in odd_looks(names, [item.look for item in measured if item.look is not None]):
        logger.warning("%s is unlike the other healthy scans: %s.", name, said)


def _frame(scans: Sequence[UnreadScan], axis: str) -> Affine | None:
    """The common frame of the healthy volumes, which is said where it is not that of the body."""
    found = [(scan.name, axes) for scan in scans if (axes := scan.axes()) is not None]
    frame = common_frame([axes for _, axes in found])
    if frame is not None:
        logger.warning("The volumes are oblique, %s.", direction_in_words(frame, axis))
    for name, axes in found:
        if (tilt := VolumeGeometry((1, 1, 1), axes, 0, frame=frame).tilt) > CLEAR_TILT:
            logger.warning("%s is turned by %.0f degrees against the direction of the slices.", name, tilt)
    return frame


def _require_alike(names: Sequence[str], measured: Sequence[Measures]) -> None:
    """Raise InputError when the values or the size of one healthy scan are unlike the median of all."""
    median = Measures.median(measured)
    typical = HealthyRange.over([""], [median])
    for name, item in zip(names, measured, strict=True):
        require_similar_size(name, item, median)
        typical.require_values(name, item)


def embed_scans(
    scans: Sequence[UnreadScan], what: str, embedder: Embedder, preparation: Preparation, folder: Path
) -> TokenFile:
    """Embeddings of every ``slice_step``-th slice of the scans.

    While one is embedded the next is read, and what the backbone gave is written.
    """
    file = TokenFile(folder / f"{what}.tokens")
    owners = subjects_of([scan.name for scan in scans], preparation.settings.subject_pattern)
    read = progress(_prepared_ahead(scans, preparation), what, len(scans), unit="scan")
    for prepared, subject in zip(read, owners, strict=True):
        shown_tokens = _shown_tokens(embedder, prepared, preparation.settings)
        file.counts.append(sum(run_behind(shown_tokens, partial(file.append, subject=subject))))
    return file


def _prepared_ahead(scans: Sequence[UnreadScan], preparation: Preparation) -> Iterator[PreparedScan]:
    """The scans one by one; the next one is read while one is used."""
    axes, step = preparation.healthy.axes, preparation.settings.slice_step
    return prefetched(preparation.of(scan.read(axes), step) for scan in scans)


def _shown_tokens(
    embedder: Embedder, prepared: PreparedScan, settings: Settings
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of what the model sees [B, row, col, D], and which patches show foreground, bool [B, row, col]."""
    shown, first = torch.zeros(0), 0
    for tokens in seen_tokens(embedder, prepared, settings):
        if first == 0:
            shown = torch.from_numpy(prepared.patch_foreground(embedder.backbone, tokens.shape[1:3]))
        yield tokens, shown[first : first + len(tokens)]
        first += len(tokens)


def say_outlying(scans: Sequence[UnreadScan], tokens: Sequence[TokenFile], settings: Settings) -> int:
    """Name the scans that are far from all others when they are left out; returns how many there are."""
    names = [scan.name for scan in scans]
    found = outlying(names, subjects_of(names, settings.subject_pattern), samples_of(tokens))
    for scan in found:
        logger.warning(
            "%s is far from all other healthy scans: %.3g when it is left out, most are at %.3g. Is it healthy, and of "
            "the same kind?", scan.name, scan.distance, scan.median,
        )  # fmt: skip
    return len(found)


def calibrate(held_out: Sequence[UnreadScan], file: TokenFile, scorer: Scorer) -> Calibration:
    """From the embeddings of the held-out scans, which are in ``file`` scan by scan."""
    voxels, scores, first = [], [], 0
    read = _prepared_ahead(held_out, scorer.preparation)
    for prepared in progress(read, "calibrate", len(held_out), unit="scan"):
        last = first + len(prepared.chosen)
        tokens = (file.read([index]) for index in range(first, last))
        scored = scorer.score_tokens(prepared, tokens)
        first = last
        voxels.append(scored.calibration_voxels)
        scores.append(scored.score)
    logger.info("Thresholds are calibrated on %d held-out healthy scans.", len(held_out))
    return Calibration.of(voxels, scores)
