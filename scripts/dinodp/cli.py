"""The ``dinodp`` command: a parser that hands over to `dinodp.commands`."""

import argparse
import sys
from collections.abc import Sequence

from dinodp import __version__
from dinodp.commands import compare, evaluate, export, fit, info, predict, verify
from dinodp.errors import InputError

EPILOG = """\
own scans, from healthy ones to anomaly maps of new ones:
  dinodp fit healthy/ --out model.h5
  dinodp predict new/ --model model.h5 --out maps/

The benchmark itself is run by Snakemake: snakemake --cores 2 --configfile config/demo.yaml
Research software, not a medical device: a score is no diagnosis.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 0, 1 after a user's mistake or a failed scan, 130 when stopped."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except InputError as error:
        print(f"dinodp: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"dinodp: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dinodp: stopped; files that were written are complete.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dinodp",
        description="Anomaly detection in medical images by mixtures of patch embeddings.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dinodp {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (fit, predict, evaluate, compare, export, info, verify):
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
