"""``dinodp verify``: are results whole, and do they fit together?"""

import argparse
import sys
from pathlib import Path

from dinodp.commands.arguments import Commands, add_command

DESCRIPTION = """\
Read a result, or all results of a run from manifest to tables, in full: is each as it was written, by which code, with
which configuration and from which inputs, and are these the ones that are there? Exit status 1 where one is wrong.

  dinodp verify results/"""


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    summary = "check that results are whole and fit together"
    parser = add_command(commands, "verify", run, summary, DESCRIPTION)
    parser.add_argument("path", type=Path, metavar="PATH", help="a result, or the folder `results` of a run")


def run(options: argparse.Namespace) -> int:
    """Print what made each file, and a sentence for each that is wrong."""
    from dinodp.evaluation.verifying import summary, verify

    files = verify(options.path)
    for file in files:
        print("\n".join(file.lines()))
    print(summary(files))
    for file in files:
        if file.problem:
            print(f"dinodp: {file.problem}", file=sys.stderr)
    return int(any(file.problem for file in files))
