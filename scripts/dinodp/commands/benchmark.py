"""``dinodp benchmark``: the workflow, from any folder."""

import argparse
import subprocess
import sys
from importlib.util import find_spec

from dinodp.commands.arguments import Commands, say
from dinodp.errors import InputError
from dinodp.jobs.snakefile import SNAKEFILE, project_file

DESCRIPTION = """\
usage: dinodp benchmark SNAKEMAKE_OPTIONS

Run the benchmark's workflow with Snakemake; results appear below the working folder.

  dinodp benchmark --cores 2                                    the demo: phantoms, no download
  dinodp benchmark --cores 8 --configfile config/paper.yaml     the paper
  dinodp benchmark --cores 2 --configfile mine.yaml             your own (its data sets lie below the working folder)

All options are Snakemake's (snakemake --help). A run file config/NAME.yaml that is not in the working folder is the one
that comes with dinodp."""


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command to the parser: its options, which begin with -, are all handed on."""
    summary = "run the benchmark's workflow, with Snakemake's options"
    parser = commands.add_parser("benchmark", help=summary, add_help=False, prefix_chars="\0")
    parser.add_argument("options", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run Snakemake; return its exit status. Raises InputError where it is not installed."""
    if not options.options or options.options[0] in ("-h", "--help"):
        say(*DESCRIPTION.splitlines())
        return 0
    require_snakemake()
    given = [project_file(option) for option in options.options]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), *given]
    return subprocess.run(command, check=False).returncode


def require_snakemake() -> None:
    """Raise InputError where Snakemake is not installed."""
    if find_spec("snakemake") is None:
        raise InputError('The workflow needs Snakemake: pip install "dinodp[workflow]".')
