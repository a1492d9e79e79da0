"""``dinodp evaluate``: predictions against lesion masks."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from dinodp.commands.arguments import Commands, add_command, require_file, say
from dinodp.errors import InputError, told
from dinodp.jobs.files import user_path, write_text
from dinodp.jobs.logs import configure_logging

DESCRIPTION = """\
Compare the anomaly maps of `dinodp predict` with lesion masks, voxel by voxel, with 95 % intervals by bootstrap over
subjects. Counted are the voxels that were scored, and lesion voxels that were not.

  dinodp evaluate maps/ --masks new/ --scan-suffix _t1 --mask-suffix _seg"""


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "evaluate", run, "measure predictions against lesion masks", DESCRIPTION)
    parser.add_argument("predictions", type=user_path, metavar="DIR", help="a folder that `dinodp predict` wrote")
    add_masks(parser)


def add_masks(parser: argparse.ArgumentParser) -> None:
    """Arguments that say where masks are and how they are called."""
    parser.add_argument(
        "--masks", type=user_path, required=True, metavar="DIR", help="folder of the masks; what is not zero is lesion"
    )
    parser.add_argument("--scan-suffix", default="", metavar="TEXT", help="end of a scan's name that its mask lacks")
    parser.add_argument("--mask-suffix", default="", metavar="TEXT", help="end of a mask's name that its scan lacks")
    parser.add_argument(
        "--without-mask", choices=("refuse", "healthy", "skip"), default="refuse",
        help="a scan without mask is a mistake, is healthy, or is left out (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--subject-pattern", metavar="REGEX", help="as in `dinodp fit`: scans of one person belong together"
    )
    parser.add_argument(
        "--resamples", type=int, default=1000, metavar="N", help="of the subjects (default: %(default)s)"
    )
    parser.add_argument("--out", type=user_path, metavar="CSV", help="also write the table here")


def run(options: argparse.Namespace) -> int:
    """Print the metrics."""
    configure_logging()
    from dinodp.scans.measuring import Predictions, evaluate_predictions, metric_rows

    predictions = Predictions.read(options.predictions)
    test = test_of(options, predictions.names)
    rows = metric_rows(evaluate_predictions(predictions, test, options.resamples))
    show(rows, options.out)
    print(count_of(test.subjects, test.masks))
    say_failed(predictions.failed)
    return 0


def say_failed(names: Sequence[str]) -> None:
    """Say which scans were not scored, and so are in no number."""
    if names:
        say(f"Not counted, since `dinodp predict` could not score them: {len(names)} (such as {names[0]}).")


def test_of(options: argparse.Namespace, names: Sequence[str]) -> Any:
    """The scans that are evaluated. Raises InputError for a bad number of resamples or predictions without a scan."""
    from dinodp.scans.measuring import LabelledScans
    from dinodp.scans.reading.masks import MaskNaming

    if options.out is not None:
        require_file(options.out, overwrite=True)
    if options.resamples < 1:
        raise InputError(f"--resamples is {options.resamples}; it must be at least 1.")
    if not names:
        raise InputError("The predictions hold no scan that was scored.")
    naming = MaskNaming(options.scan_suffix, options.mask_suffix, options.without_mask)
    return LabelledScans.of(names, options.masks, naming, options.subject_pattern)


def show(rows: Sequence[dict[str, Any]], out: Path | None) -> None:
    """Print rows as a table, and write them as CSV."""
    print(tabulate(rows, headers="keys", floatfmt=".4f", missingval="-"))
    if out is not None:
        with told(f"The table cannot be written to {out}", place=out):
            write_text(out, pd.DataFrame(rows).to_csv(index=False))


def count_of(subjects: Sequence[str], masks: dict[str, Path | None]) -> str:
    """How much the intervals rest on."""
    number = len(set(subjects))
    few = " With so few the intervals are rough; there is none where under 3 have a lesion." if number < 20 else ""
    return f"{len(masks)} scans of {number} subjects; intervals are over subjects.{few}"
