"""The model card: what a fitted model was made from, what it is for, and what it is not."""

import re
from pathlib import Path

from dinodp import __version__
from dinodp.datasets.geometry import direction_in_words
from dinodp.errors import visible
from dinodp.jobs.files import write_text
from dinodp.jobs.origin import sha256
from dinodp.options.protocol import FALSE_POSITIVE_RATES
from dinodp.scans.detecting.healthy import HealthyRange
from dinodp.scans.detecting.model_file import FittedDetector
from dinodp.scans.detecting.origin import Update
from dinodp.scans.naming import card_of

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
AXES_OF_SPACING = ("slices", "rows", "columns")
FRONT_MATTER = """---
library_name: dinodp
license: {licence}
{extra}tags:
- anomaly-detection
- medical-imaging
- out-of-distribution-detection
- not-a-medical-device
---
"""  # as the Hugging Face hub reads it from a README.md
CARD = """# Model card: {name}

**Not a medical device. A score says how far a patch lies from the healthy scans below; it is no diagnosis, no
probability of disease, and no reason by itself to treat or not to treat anyone.**

## What it is
A model of patch embeddings of the family `{family}`, score `{score}`{negative}, made by dinodp {version}. The higher a
score, the less a patch is like the healthy scans. Options: {options}. Backbone: `{backbone}`, revision
`{revision}`{weights}, layers {layers}, resolution {resolution} pixels.

## Data
- Healthy scans fitted on: {scans} ({slices} slices or images). Held out for calibration: {held_out}.
- Kind: {kind}, {colour}{depth}. Values (0.5 to 99.5 % of each scan's foreground): {low} to {high}.
- {spacing}
- Whether the scans were healthy, who is on them and how they were acquired is known to whoever chose them, not to this
  file. Names of scans are not kept; SHA-256 of their digests: `{digest}`.{outlying}

## Thresholds
Share of foreground voxels (images: pixels) above the threshold on the held-out healthy scans: pooled, and in the scans
one by one.

| name | pooled | threshold | scan with the least | scan with the most |
|---|---|---|---|---|
{thresholds}

{updates}{few}Other healthy people, scanners or protocols can give other rates. Tail probabilities rest on {voxels}
voxels of these scans, which are no independent ones; none is below {smallest:.1g}.

## Intended use
Research: to point a reader to places worth looking at, to compare methods, to prepare annotation. Output must be read
by someone qualified to read such scans.

## Limits
- Whatever is rare in the healthy scans scores high, be it disease, an artefact, or anatomy that was not among them;
  disease that looks like healthy tissue scores low.
- A finding smaller than a patch ({patch} pixels of the resized image) may be missed. Slices are scored one by one;
  those with little foreground, at the ends of a volume, are not scored at all.
- Scans whose values, spacing or size lie far outside the healthy ones are refused, unless --force says otherwise;
  images for volumes, grey for colour and another bit depth always. A similar range of values does not prove the same
  protocol.
- The backbone and the scans have licences of their own.{weights_licence}
"""


def write_card(model: Path, detector: FittedDetector) -> Path:
    """Write the card beside a model file (``model.h5`` -> ``model.card.md``); return its path."""
    path = card_of(model)
    write_text(path, describe(visible(model.name), detector))
    return path


def describe(name: str, detector: FittedDetector) -> str:
    """The card's text, Markdown with the front matter of the Hugging Face hub."""
    scorer, origin = detector.scorer, detector.origin
    settings, healthy, backbone = scorer.settings, scorer.preparation.healthy, scorer.embedder.backbone.provenance()
    return front_matter(detector) + CARD.format(
        name=name,
        family=settings.model.family,
        options=", ".join(f"`{key}` {value}" for key, value in settings.model.fit_options().items() if key != "family"),
        score=settings.score_name,
        negative=" (negative, in nats)" if settings.score_name == "log_likelihood" else "",
        version=__version__,
        **{key: backbone[key] for key in ("backbone", "revision", "layers", "resolution")},
        weights=f" (weights SHA-256 `{backbone['weights_sha256'][:16]}`)" if "weights_sha256" in backbone else "",
        scans=origin.scans,
        slices=origin.slices,
        held_out=origin.held_out_scans,
        kind=f"{healthy.kind}s",
        colour="colour" if healthy.channels == 3 else "grey",
        depth=f", {healthy.depth} bits" if healthy.depth else f", {settings.axis} slices",
        low=f"{healthy.low[0]:g}",
        high=f"{healthy.high[1]:g}",
        spacing=_spacing(healthy, settings.axis),
        digest=sha256("".join(origin.scans_sha256)),
        outlying=_outlying(origin.outlying_scans),
        thresholds="\n".join(_threshold_rows(detector)),
        voxels=detector.calibration.tail.count,
        smallest=detector.calibration.tail.smallest,
        updates="".join(map(_update, origin.updates)),
        few=_warning(origin.held_out_scans),
        patch=backbone["patch_size"],
        weights_licence=_weights_licence(detector),
    )


def front_matter(detector: FittedDetector) -> str:
    """What the hub reads of a card: the licence of the model is for whoever fitted it to say."""
    name = str(detector.scorer.embedder.backbone.provenance()["backbone"])
    extra = "license_name: for-whoever-fitted-it-to-say\n"
    if HUB_NAME.fullmatch(name) and not Path(name).exists():
        extra += f"base_model: {name}\n"
    return FRONT_MATTER.format(licence="other", extra=extra)


def _weights_licence(detector: FittedDetector) -> str:
    if detector.weights is None:
        return ""
    names = ", ".join(f"`{name}`" for name in detector.weights.files)
    return f" Its weights lie beside the model ({names}), under the licence {detector.weights.licence}."


def _spacing(healthy: HealthyRange, axis: str) -> str:
    if not healthy.spacing:
        return "No physical spacing: images."
    pairs = zip(AXES_OF_SPACING, healthy.spacing, strict=True)
    sizes = ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in pairs)
    oblique = "" if healthy.axes is None else f" They are oblique, {direction_in_words(healthy.axes, axis)}."
    return f"Spacing in mm: {sizes}. Field of view of a slice: {healthy.side:.0f} mm.{oblique}"


def _outlying(count: int) -> str:
    if count == 0:
        return ""
    what = "scan is" if count == 1 else "scans are"
    return f"\n- **{count} {what} far from all others** when left out: it may be diseased, or of another kind."


def _threshold_rows(detector: FittedDetector) -> list[str]:
    calibration = detector.calibration
    rows = []
    for name, rate in FALSE_POSITIVE_RATES.items():
        rates = calibration.scan_rates[name]
        limit = calibration.thresholds[name]
        rows.append(f"| {name} | {rate:.0%} | {limit:.6g} | {min(rates):.1%} | {max(rates):.1%} |")
    return rows


def _update(update: Update) -> str:
    """What an update found, as a paragraph."""
    limits = ", ".join(f"{name} {limit:.6g}" for name, limit in update.thresholds.items())
    rates = ", ".join(f"{update.after[name]:.1%} above {name}" for name in update.thresholds)
    return (
        f"Updated with {update.scans} more healthy scans (and {update.held_out_scans} held out for the thresholds), "
        f"from the model `{update.model_sha256[:16]}`. Its thresholds were {limits}; of the voxels of the new held-out "
        f"scans the updated model has {rates}.\n\n"
    )


def _warning(held_out: int) -> str:
    if held_out >= 20:
        return ""
    scans = "scan" if held_out == 1 else "scans"
    return f"With only {held_out} held-out {scans} these rates are rough. "
