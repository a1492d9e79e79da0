"""``dinodp combine``: several models of the same subjects in one map."""

import argparse

from dinodp.commands.arguments import Commands, add_command, folder_lock, require_new, require_writable, say
from dinodp.errors import InputError, told
from dinodp.jobs.files import user_path
from dinodp.jobs.logs import configure_logging

DESCRIPTION = """\
Combine the tail probabilities that `dinodp predict --calibrated` wrote for several models of the same subjects, such as
one of FLAIR and one of T1, by Fisher's rule. The scans of a subject must lie on one grid.

  dinodp combine flair/ t1/ --suffixes _flair _t1 --out both/
  dinodp evaluate both/ --masks masks/

Modalities of one body depend on each other: the result is a score from 0 to 1, and no p-value."""


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = add_command(commands, "combine", run, "combine models of several modalities", DESCRIPTION)
    parser.add_argument(
        "predictions", type=user_path, nargs="+", metavar="DIR", help="folders that `dinodp predict --calibrated` wrote"
    )
    parser.add_argument("--out", type=user_path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that holds something already")
    parser.add_argument(
        "--suffixes", nargs="+", metavar="TEXT",
        help="for each folder, the end of its scans' names that those of the others lack, such as _flair _t1",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Combine, and say what was written."""
    configure_logging()
    count = len(options.predictions)
    suffixes = options.suffixes or [""] * count
    if count < 2 or len(suffixes) != count:
        raise InputError(f"There are {count} folders and {len(suffixes)} suffixes: give two or more, and one for each.")
    require_writable(options.out)
    with folder_lock(options.out):
        require_new(options.out, options.overwrite)
        return _combine(options, suffixes)


def _combine(options: argparse.Namespace, suffixes: list[str]) -> int:
    from dinodp.scans.combining import write_combined
    from dinodp.scans.measuring.predictions import Predictions
    from dinodp.scans.writing.summary import remove_earlier

    models = [Predictions.read(folder) for folder in options.predictions]
    if options.overwrite:
        remove_earlier(options.out)
    with told(f"The combined maps cannot be written to {options.out}", place=options.out):
        written = write_combined(options.out, models, suffixes)
    say(f"{written} scans combined: {options.out / 'scans.csv'}")
    return 0
