"""Evaluate anomaly maps against lesion masks, under every convention, in two passes over the maps."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dinodp.errors import InputError
from dinodp.evaluation.metadata import groups, joined
from dinodp.images import MASK_RULES as RULE_WORDS
from dinodp.jobs.logs import progress
from dinodp.metrics.bootstrap import Bootstrap
from dinodp.metrics.histograms import ScoreBins
from dinodp.metrics.thresholds import thresholds_of
from dinodp.scans.detecting.calibration import evenly
from dinodp.scans.measuring.conventions import MASK_RULES, Choices, Measured
from dinodp.scans.measuring.counting import ConventionCounter
from dinodp.scans.measuring.masked import LabelledScans, counted, find_foregrounds, masked, read_foreground
from dinodp.scans.measuring.scored import ALL, FOREGROUND, SCORED, Map, MapSource, ScoredScan

LARGEST_PREVALENCE = 0.99  # masks that cover more are no lesion masks
VALUES_PER_SCAN = 100_000  # sampled to place the bins of the histograms


class Healthy:
    """Maps of healthy scans, which give thresholds; with a folder of foregrounds, also of the pixels within."""

    def __init__(self, source: MapSource, foreground: Path | None) -> None:
        self.source = source
        self.foregrounds = None if foreground is None else find_foregrounds(foreground, source.names)

    def thresholds(self, pixels: str) -> dict[str, float]:
        """Scores that 10, 5 and 1 % of the healthy pixels that count exceed, by rate."""
        sample = np.concatenate([sampled(values) for values in self._values(pixels)])
        return thresholds_of(self._values(pixels), ScoreBins.of(sample))

    def _values(self, pixels: str) -> Iterator[Map]:
        for name in self.source.names:
            scan = self.source.scan(name)
            yield _values(scan, None if self.foregrounds is None else self.foregrounds[name], pixels)


def evaluate_maps(
    source: MapSource, test: LabelledScans, choices: Choices, healthy: Healthy | None = None
) -> Measured:
    """All metrics of the maps under every convention, with their values in each resample of the subjects.

    Thresholds come from ``healthy`` maps, else from the source, where it has some. Raises InputError when no mask has a
    lesion, or nothing is outside of them, and for maps and masks that do not fit.
    """
    subjects = sorted(set(test.subjects))
    counters = _counters(source, test, len(subjects), choices, healthy)
    only_255 = True
    named = zip(test.masks.items(), test.subjects, strict=True)
    for number, ((name, mask), subject) in enumerate(progress(named, "evaluate", len(test.masks), "scan")):
        scan = masked(source, name, mask, test.foreground(name), choices.size)
        only_255 &= bool(np.isin(scan.values, (0, 255)).all())
        for counter in counters:
            counter.add(scan, subjects.index(subject), number)
    _require_lesions(counters, len(test.masks))
    return _measured(counters, test, subjects, choices, only_255, bool(counters[0].thresholds))


def _measured(
    counters: Sequence[ConventionCounter], test: LabelledScans, subjects: Sequence[str], choices: Choices,
    only_255: bool, has_thresholds: bool,
) -> Measured:  # fmt: skip
    measured = Measured()
    grouped = groups_of(test)
    for counter in counters:
        if counter.rule != MASK_RULES[0]:
            if only_255:
                continue
            if not counter.anomalous:
                measured.notes.append(f"No mask holds the value 255, so there is nothing under {counter.rule}.")
                continue
        labels = np.isin(np.arange(len(subjects)), list(counter.anomalous))
        bootstrap = Bootstrap.of(list(subjects), labels, choices.n_resamples)
        measured.found |= dict(counter.found(bootstrap))
        if counter.lesions is not None:
            measured.found |= dict(counter.shares_of(grouped))
            measured.froc[counter.pixels] = counter.lesions.curve()
    if only_255:
        measured.notes.append("Masks hold 0 and 255 only, or are of volumes: gt0 and eq255 are the same.")
    if not has_thresholds:
        measured.notes.append("No healthy maps were given (--healthy): there is no Dice at a calibrated threshold.")
    return measured


def groups_of(test: LabelledScans) -> dict[str, set[int]]:
    """The scans, by number, of each group of the metadata, and all of them. Raises InputError as `joined` does."""
    found = {"all": set(range(len(test.masks)))}
    if test.metadata is not None:
        table, _ = joined(test.metadata, list(test.masks), test.subjects)
        for column in table:
            for name, _, _, rows in groups(table[column].tolist()):
                found[f"{column}: {name}"] = set(rows.tolist())
    return found


def _counters(
    source: MapSource, test: LabelledScans, n_subjects: int, choices: Choices, healthy: Healthy | None
) -> list[ConventionCounter]:
    kinds = [*source.pixels, *([] if test.foregrounds is None else [FOREGROUND])]
    counters = []
    for pixels in kinds:
        sample = _sample(source, test, pixels)
        thresholds = source.thresholds if healthy is None else healthy.thresholds(pixels)
        counters += [
            ConventionCounter(rule, pixels, sample, thresholds, n_subjects, choices, with_lesions=rule == MASK_RULES[0])
            for rule in MASK_RULES
        ]
    return counters


def _require_lesions(counters: Sequence[ConventionCounter], n_masks: int) -> None:
    first = counters[0].pooled.histograms
    if not first.anomalous.any():
        raise InputError(f"None of the {n_masks} masks holds a lesion: there is nothing to evaluate against.")
    if first.prevalence > LARGEST_PREVALENCE:
        raise InputError(
            f"The masks cover {first.prevalence:.1%} of what was scored: are they the scans themselves "
            "(--scan-suffix and --mask-suffix)?"
        )


def _sample(source: MapSource, test: LabelledScans, pixels: str) -> Map:
    """A sample of the scores of all pixels that count, which keeps the extremes of all that were scored."""
    parts = []
    for name in test.masks:
        scan = source.scan(name)
        scored = scan.scores[scan.scored]
        parts += [sampled(_values(scan, test.foreground(name), pixels)), np.array([scored.min(), scored.max()])]
    return np.concatenate(parts)


def _values(scan: ScoredScan, foreground: Path | None, pixels: str) -> Map:
    """The scores of the pixels that count [n]."""
    inside = read_foreground(foreground, scan) if foreground is not None and pixels == FOREGROUND else None
    values: Map = scan.scores[counted(scan, inside, pixels) & scan.scored]
    return values


def sampled(values: Map) -> Map:
    """At most so many of the values [n], evenly spaced."""
    return evenly(values, min(len(values), VALUES_PER_SCAN))


def convention_words(pixels: Sequence[str]) -> str:
    """What the words of the table mean."""
    rules = "; ".join(f"{rule}: {RULE_WORDS[rule].words}" for rule in MASK_RULES)
    meant = {
        ALL: "all: every pixel, those without a score the lowest",
        SCORED: "scored: what dinodp scored",
        FOREGROUND: "foreground: what is not 0 in the folder of --foreground, holes filled",
    }
    return f"Masks: {rules}. Pixels: {'; '.join(meant[name] for name in pixels)}. Lesion pixels always count."
