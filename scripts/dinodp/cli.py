"""The ``dinodp`` command."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import h5py
import pandas as pd

from dinodp import __version__, store
from dinodp.errors import InputError
from dinodp.files import read_json


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 after one sentence on standard error."""
    options = _parser().parse_args(arguments)
    try:
        print("\n".join(options.run(options)))
    except InputError as error:
        print(f"dinodp: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dinodp",
        description="Anomaly detection in medical images by mixtures of patch embeddings.",
        epilog="The benchmark itself is run by Snakemake: snakemake --cores 2 --configfile config/demo.yaml",
    )
    parser.add_argument("--version", action="version", version=f"dinodp {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    info = commands.add_parser("info", help="say what a file of the pipeline holds and what made it")
    info.add_argument("file", type=Path, help="an .h5, .json or .csv file under results/")
    info.set_defaults(run=lambda options: describe_file(options.file))
    return parser


def describe_file(path: Path) -> list[str]:
    """Describe any file that the pipeline writes, line by line. Raises InputError for anything else."""
    readers = {".h5": _describe_hdf5, ".json": _describe_json, ".csv": _describe_csv}
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    if path.suffix not in readers:
        raise InputError(
            f"{path} ends in {path.suffix!r}: the pipeline's data files end in {', '.join(sorted(readers))}."
        )
    return [str(path), *readers[path.suffix](path)]


def _describe_hdf5(path: Path) -> list[str]:
    lines: list[str] = []

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            lines.append(f"  {name}: {item.dtype} {list(item.shape)}")

    with store.reading(path) as file:
        lines.extend(f"  {key}: {value}" for key, value in sorted(file.attrs.items()))
        file.visititems(visit)
    return lines


def _describe_json(path: Path) -> list[str]:
    try:
        return json.dumps(read_json(path), indent=2, sort_keys=True).splitlines()
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}).") from error


def _describe_csv(path: Path) -> list[str]:
    try:
        frame = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable CSV table ({error}).") from error
    lines = [f"  {len(frame)} rows; columns: {', '.join(frame.columns)}"]
    if {"split", "label"} <= set(frame.columns):
        counts = Counter(zip(frame["split"], frame["label"], strict=True))
        lines.extend(f"  {split}, {label}: {count} images" for (split, label), count in sorted(counts.items()))
    return lines


if __name__ == "__main__":
    sys.exit(main())
