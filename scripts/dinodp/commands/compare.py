"""``dinodp compare``: two sets of anomaly maps of the same scans."""

import argparse

from dinodp.commands.arguments import Commands, add_command, say
from dinodp.commands.evaluate import (
    add_masks,
    choices_of,
    count_of,
    require_files,
    say_failed,
    test_of,
    write_rows,
)
from dinodp.errors import InputError
from dinodp.jobs.files import user_path
from dinodp.jobs.logs import configure_logging

DESCRIPTION = """\
Compare two sets of anomaly maps of the same scans, of `dinodp predict` or of any other tool: every metric of both under
every convention, and the difference (first minus second) with its 95 % interval over subjects, who are resampled
together. An interval that holds zero says that these scans do not tell the two apart.

  dinodp compare maps_a/ maps_b/ --masks new/ --scan-suffix _t1 --mask-suffix _seg"""


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "compare", run, "compare two sets of anomaly maps of the same scans", DESCRIPTION)
    parser.add_argument("first", type=user_path, metavar="MAPS", help="maps of the first model")
    parser.add_argument("second", type=user_path, metavar="MAPS", help="maps of the second model")
    for which in ("first", "second"):
        parser.add_argument(
            f"--healthy-{which}", type=user_path, metavar="MAPS",
            help=f"maps of healthy scans by the {which} model, for thresholds",
        )  # fmt: skip
    add_masks(parser)


def run(options: argparse.Namespace) -> int:
    """Print both models' metrics and their differences."""
    configure_logging()
    from dinodp.scans.measuring.evaluating import Healthy, convention_words, evaluate_maps
    from dinodp.scans.measuring.map_folder import open_maps
    from dinodp.scans.measuring.tables import difference_rows, summary

    require_files(options.out)
    choices = choices_of(options)
    first, second = (open_maps(folder, options.axis) for folder in (options.first, options.second))
    if first.names != second.names:
        alone = sorted(set(first.names) ^ set(second.names))
        raise InputError(
            f"{options.first} and {options.second} hold maps of different scans: {len(alone)} are in one only, "
            f"for example {alone[0]}."
        )
    test = test_of(options, first.names)
    healthy = [
        None if folder is None else Healthy(open_maps(folder, options.axis), options.foreground)
        for folder in (options.healthy_first, options.healthy_second)
    ]
    both = [
        evaluate_maps(source, test, choices, normal)
        for source, normal in zip((first, second), healthy, strict=True)
    ]
    rows = difference_rows(*both)
    say(f"first: {first.model}   second: {second.model}")
    print(summary(rows, "difference"))
    write_rows(rows, options.out)
    say(*both[0].notes, convention_words(list(both[0].froc)), count_of(test.subjects, test.masks))
    say_failed(sorted({*first.failed, *second.failed}))
    return 0
