"""``dinodp evaluate``: anybody's anomaly maps against lesion masks."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dinodp.commands.arguments import Commands, add_command, require_file, say
from dinodp.errors import InputError, told
from dinodp.jobs.files import user_path, write_text
from dinodp.jobs.logs import configure_logging

DESCRIPTION = """\
Compare anomaly maps with lesion masks, pixel by pixel, under every convention that papers and tools use, with 95 %
intervals over subjects. The maps are those of `dinodp predict`, or of any other tool: one file per scan or image
(NIfTI, .npy, TIFF or PNG of 16 bits or floating point), called as its mask is.

  dinodp evaluate maps/ --masks new/ --scan-suffix _t1 --mask-suffix _seg
  dinodp evaluate theirs/ --masks masks/ --healthy theirs_healthy/ --foreground brains/ --out table.csv"""
IMAGE_SCORES = ("max", "mean", "top-fraction")


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "evaluate", run, "measure anybody's anomaly maps against lesion masks", DESCRIPTION)
    parser.add_argument("maps", type=user_path, metavar="MAPS", help="a folder of anomaly maps, of any tool")
    parser.add_argument(
        "--healthy", type=user_path, metavar="MAPS",
        help="maps of healthy scans by the same tool: their 10, 5 and 1 %% highest pixels give the thresholds",
    )  # fmt: skip
    parser.add_argument("--froc", type=user_path, metavar="CSV", help="write the FROC curve here")
    add_masks(parser)


def add_masks(parser: argparse.ArgumentParser) -> None:
    """Arguments that say where masks are, how they are called, and which conventions are wanted."""
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument("--masks", type=user_path, metavar="DIR", help="folder of the lesion masks")
    labels.add_argument(
        "--boxes", type=user_path, metavar="FILE",
        help="boxes around lesions instead: a CSV table (image, x, y, width, height) or JSON as of COCO",
    )  # fmt: skip
    parser.add_argument("--scan-suffix", default="", metavar="TEXT", help="end of a scan's name that its mask lacks")
    parser.add_argument("--mask-suffix", default="", metavar="TEXT", help="end of a mask's name that its scan lacks")
    parser.add_argument(
        "--without-mask", choices=("refuse", "healthy", "skip"), default="refuse",
        help="a scan without mask is a mistake, is healthy, or is left out (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--foreground", type=user_path, metavar="DIR",
        help="masks of the body, or the scans, called as the maps: pixels that are 0 there do not count in a second "
        "set of values",
    )  # fmt: skip
    parser.add_argument(
        "--size", choices=("mask", "map"),
        help="where map and mask of an image differ in size: which keeps its own (default: refuse)",
    )  # fmt: skip
    parser.add_argument(
        "--axis", choices=("axial", "coronal", "sagittal"), default="axial",
        help="along which volumes of other tools are sliced (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--image-score", nargs="+", choices=IMAGE_SCORES, default=IMAGE_SCORES, metavar="RULE",
        help="how an image or scan is scored: max, mean, top-fraction (default: all three)",
    )  # fmt: skip
    parser.add_argument(
        "--top-fraction", type=float, default=0.01, metavar="F", help="of top-fraction (default: %(default)s)"
    )
    parser.add_argument(
        "--subject-pattern", metavar="REGEX", help="as in `dinodp fit`: scans of one person belong together"
    )
    parser.add_argument(
        "--metadata", type=user_path, metavar="CSV",
        help="a table with a column image or subject, or participants.tsv of a BIDS data set: false positives of "
        "healthy scans in each group of the other columns",
    )  # fmt: skip
    parser.add_argument(
        "--resamples", type=int, default=1000, metavar="N", help="of the subjects (default: %(default)s)"
    )
    parser.add_argument("--out", type=user_path, metavar="CSV", help="also write the table here")


def run(options: argparse.Namespace) -> int:
    """Print the metrics."""
    configure_logging()
    from dinodp.scans.measuring.evaluating import Healthy, convention_words, evaluate_maps
    from dinodp.scans.measuring.map_folder import open_maps
    from dinodp.scans.measuring.tables import metric_rows, summary

    require_files(options.out, options.froc)
    maps, choices = open_maps(options.maps, options.axis), choices_of(options)
    healthy = None if options.healthy is None else Healthy(open_maps(options.healthy, options.axis), options.foreground)
    test = test_of(options, maps.names)
    measured = evaluate_maps(maps, test, choices, healthy)
    rows = metric_rows(measured)
    print(summary(rows, "value"))
    write_rows(rows, options.out)
    write_rows([row for pixels, curve in measured.froc.items() for row in _points(pixels, curve)], options.froc)
    say_unused(test, options.boxes or options.masks)
    words = convention_words(list(measured.froc), options.boxes is not None)
    say(*measured.notes, words, count_of(test.subjects, test.masks))
    say_failed(maps.failed)
    return 0


def _points(pixels: str, curve: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"pixels": pixels, **dict(zip(curve, values, strict=True))} for values in zip(*curve.values(), strict=True)
    ]


def choices_of(options: argparse.Namespace) -> Any:
    """The conventions that are asked for. Raises InputError for numbers out of range."""
    from dinodp.scans.measuring.conventions import Choices

    return Choices(options.resamples, tuple(options.image_score), options.top_fraction, options.size)


def say_unused(test: Any, place: Path) -> None:
    """Say which masks, or images with boxes, have no map."""
    if test.unused:
        count = len(test.unused)
        say(f"Not used, as there is no map of them: {count} of what {place} holds (such as {test.unused[0]}).")


def say_failed(names: Sequence[str]) -> None:
    """Say which scans were not scored, and so are in no number."""
    if names:
        say(f"Not counted, since `dinodp predict` could not score them: {len(names)} (such as {names[0]}).")


def test_of(options: argparse.Namespace, names: Sequence[str]) -> Any:
    """The scans that are evaluated. Raises InputError for predictions without a scan and as `LabelledScans.of` does."""
    from dinodp.datasets.boxes import BoxFile
    from dinodp.scans.measuring.masked import LabelledScans
    from dinodp.scans.reading.masks import MaskNaming

    if not names:
        raise InputError("The predictions hold no scan that was scored.")
    naming = MaskNaming(options.scan_suffix, options.mask_suffix, options.without_mask)
    more = (naming, options.subject_pattern, options.foreground, options.metadata)
    if options.boxes is not None and options.size is not None:
        raise InputError("--size is of masks: boxes are in pixels of the maps.")
    if options.boxes is not None:
        return LabelledScans.with_boxes(names, BoxFile.read(options.boxes), *more)
    return LabelledScans.of(names, options.masks, *more)


def require_files(*paths: Path | None) -> None:
    """Raise InputError unless a table can be written to each of the paths that are given."""
    for path in filter(None, paths):
        require_file(path, overwrite=True)


def write_rows(rows: Sequence[dict[str, Any]], out: Path | None) -> None:
    """Write rows as CSV, where a path is given."""
    if out is not None:
        with told(f"The table cannot be written to {out}", place=out):
            write_text(out, pd.DataFrame(rows).to_csv(index=False))


def count_of(subjects: Sequence[str], masks: dict[str, Path | None]) -> str:
    """How much the intervals rest on."""
    number = len(set(subjects))
    few = " With so few the intervals are rough; there is none where under 3 have a lesion." if number < 20 else ""
    return f"{len(masks)} scans of {number} subjects; intervals are over subjects.{few}"
