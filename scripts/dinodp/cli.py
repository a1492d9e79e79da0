"""The ``dinodp`` command: a parser that hands over to `dinodp.commands`."""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from dinodp import __version__
from dinodp.commands import (
    benchmark,
    combine,
    compare,
    distill,
    evaluate,
    export,
    fit,
    info,
    predict,
    prefetch,
    update,
    verify,
)
from dinodp.errors import InputError, memory_sentence, ran_out_of_memory, reason_of, visible
from dinodp.jobs.logs import keep_traceback, quiet_hdf5

EPILOG = """\
own scans, from healthy ones to anomaly maps of new ones:
  dinodp fit healthy/ --out model.h5
  dinodp predict new/ --model model.h5 --out maps/

the benchmark, a Snakemake workflow: dinodp benchmark --cores 2
Research software, not a medical device: a score is no diagnosis.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 0, 1 after a user's mistake or a failed scan, 130 when stopped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the terminal lacks is shown as an escape
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        with quiet_hdf5():
            return int(options.run(options))
    except KeyboardInterrupt:
        return _stop("stopped; files that were written are complete.", 130)
    except Exception as error:
        if options.debug:
            raise
        return _stop(_sentence(error, options), 1)


def _stop(sentence: str, status: int) -> int:
    print(f"dinodp: {visible(sentence)}", file=sys.stderr)
    return status


def _sentence(error: Exception, options: argparse.Namespace) -> str:
    """A mistake as it is told; what the system refused, with the reason; a defect, with the place of its traceback."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        out: Path | None = getattr(options, "out", None)
        return f"a file cannot be read or written ({reason_of(error, out)})."
    if ran_out_of_memory(error):
        return memory_sentence(error)
    return f"a defect of dinodp ({reason_of(error)}), please report it: the traceback is {keep_traceback(error)}."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dinodp",
        description="Anomaly detection in medical images by mixtures of patch embeddings.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dinodp {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of whatever goes wrong")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (
        fit, distill, predict, update, combine, evaluate, compare, export, info, verify, benchmark, prefetch,
    ):  # fmt: skip
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
