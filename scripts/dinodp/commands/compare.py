"""``dinodp compare``: two models on the same scans."""

import argparse

from dinodp.commands.arguments import Commands, add_command
from dinodp.commands.evaluate import add_masks, count_of, say_failed, show, test_of
from dinodp.errors import InputError
from dinodp.jobs.files import user_path
from dinodp.jobs.logs import configure_logging

DESCRIPTION = """\
Compare two models by their predictions of the same scans: every metric of both, and the difference (first minus
second) with its 95 % interval by paired bootstrap over subjects. An interval that holds zero says that these scans do
not tell the models apart.

  dinodp compare maps_a/ maps_b/ --masks new/ --scan-suffix _t1 --mask-suffix _seg"""


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "compare", run, "compare two models on the same scans", DESCRIPTION)
    parser.add_argument("first", type=user_path, metavar="DIR", help="predictions of the first model")
    parser.add_argument("second", type=user_path, metavar="DIR", help="predictions of the second model")
    add_masks(parser)


def run(options: argparse.Namespace) -> int:
    """Print both models' metrics and their differences."""
    configure_logging()
    from dinodp.scans.measuring import Predictions, difference_rows, evaluate_predictions

    first, second = (Predictions.read(folder) for folder in (options.first, options.second))
    if first.names != second.names:
        alone = sorted(set(first.names) ^ set(second.names))
        raise InputError(
            f"{options.first} and {options.second} hold predictions of different scans: {len(alone)} are in one only, "
            f"for example {alone[0]}."
        )
    test = test_of(options, first.names)
    rows = difference_rows(*(evaluate_predictions(item, test, options.resamples) for item in (first, second)))
    print(f"first: {first.model}   second: {second.model}")
    show(rows, options.out)
    print(count_of(test.subjects, test.masks))
    say_failed(sorted({*first.failed, *second.failed}))
    return 0
