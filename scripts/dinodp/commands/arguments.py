"""Arguments that several commands share."""

import argparse
import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from dinodp.backbones.engines import DTYPES, ENGINES
from dinodp.datasets.bids import SUBJECT_PATTERN, BidsChoice, BidsInput, Participants
from dinodp.errors import InputError, reason_of, visible
from dinodp.jobs.files import FOLDER_LOCK
from dinodp.jobs.locks import exclusive

if TYPE_CHECKING:
    from dinodp.scans.detecting.machine import Machine

Commands = argparse._SubParsersAction  # the type of what `add_subparsers` returns
SCANS = (
    "a folder (read with its subfolders), an image (PNG, JPEG, TIFF), a NIfTI volume, or the folder of a DICOM series"
)


def add_command(
    commands: "Commands[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    description: str,
) -> argparse.ArgumentParser:
    """A command with a one-line summary and a longer description."""
    parser = commands.add_parser(
        name, help=summary, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Where and how the backbone runs."""
    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, mps, xpu or auto (default: auto)")
    group.add_argument(
        "--batch-size", type=int, metavar="N",
        help="slices or images at a time (default: 4 on a CPU, 32 on a GPU, halved when memory runs out)",
    )  # fmt: skip
    group.add_argument(
        "--engine", choices=ENGINES,
        help="what computes the backbone: torch; openvino, faster on CPUs, an extra; or auto, openvino where "
        "it is installed and there is no GPU (default: torch, or that of the model's fit)",
    )  # fmt: skip
    group.add_argument(
        "--dtype", choices=DTYPES,
        help="arithmetic of the backbone (default: float32, or that of the model's fit)",
    )  # fmt: skip


def machine_of(options: argparse.Namespace) -> "Machine":
    """What `add_machine` was given."""
    from dinodp.scans.detecting.machine import Machine  # torch takes seconds to import: not for --help

    return Machine(options.device, options.batch_size, options.engine, options.dtype)


def add_pattern(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Which files of a folder are scans."""
    parser.add_argument(
        "--pattern", metavar="GLOB", help="of the files in a folder, only those named like this, such as '*_t1.nii.gz'"
    )


def add_bids(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Which files of BIDS data sets are scans."""
    parser.add_argument(
        "--bids", nargs="+", metavar="KEY=VALUE",
        help="folders are roots of BIDS data sets: read what has suffix=T1w and, if given, session=1, acquisition=NAME "
        "or another entity (session= without a value: files without one)",
    )  # fmt: skip
    parser.add_argument(
        "--participants", metavar="COLUMN=VALUE",
        help="with --bids, only participants with this value, or one of several (a,b), in participants.tsv",
    )  # fmt: skip


def bids_of(options: argparse.Namespace) -> BidsInput | None:
    """What of BIDS data sets is read; None where folders are read. Raises InputError for options that contradict."""
    if options.bids is None:
        if options.participants is not None:
            raise InputError("--participants chooses among those of a BIDS data set: add --bids suffix=NAME.")
        return None
    if options.pattern is not None:
        raise InputError("--pattern and --bids both choose files: give one of them.")
    participants = None if options.participants is None else Participants.of(options.participants)
    return BidsInput(BidsChoice.of(options.bids), participants)


def subject_pattern_of(options: argparse.Namespace) -> str | None:
    """How the subject is found in a scan's name: of BIDS data sets, unless it is said, by the participant."""
    pattern: str | None = options.subject_pattern
    return SUBJECT_PATTERN if pattern is None and options.bids is not None else pattern


def say(*lines: str) -> None:
    """Print lines, in which the name of a file can neither move the cursor nor turn the direction of the rest."""
    for line in lines:
        print(visible(line))


def file_lock(path: Path) -> AbstractContextManager[None]:
    """Whoever writes the file ``path`` holds this. Raises InputError when another process does."""
    return exclusive(path.with_name(f".{path.name}.lock"), path)


def folder_lock(path: Path) -> AbstractContextManager[None]:
    """Whoever writes the folder ``path`` holds this. Raises InputError when another process does."""
    return exclusive(path / FOLDER_LOCK, path)


def require_new(path: Path, overwrite: bool) -> None:
    """Raise InputError when ``path`` would be overwritten, unless that is wanted."""
    exists = any(item.name != FOLDER_LOCK for item in path.iterdir()) if path.is_dir() else path.exists()
    if exists and not overwrite:
        raise InputError(f"{path} exists already: choose another name, or add --overwrite.")


def require_file(path: Path, overwrite: bool) -> None:
    """Raise InputError unless a file can be written to ``path``, before an hour of computing."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file.")
    require_new(path, overwrite)
    require_writable(path.parent)


def require_writable(folder: Path) -> None:
    """Raise InputError where nothing can be written; the folder need not be there yet."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        reason = reason_of(OSError(error.errno, error.strerror), place)  # without the name of the temporary file
        raise InputError(f"Nothing can be written into {folder} ({reason}).") from error


def number_or_name(names: Sequence[str]) -> Callable[[str], str | float]:
    """A type for argparse: one of ``names``, or a number."""

    def convert(text: str) -> str | float:
        if text in names:
            return text
        try:
            number = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor one of {', '.join(names)}") from None
        if not math.isfinite(number):
            raise argparse.ArgumentTypeError(f"{text!r} is not finite")
        return number

    return convert
