"""``dinodp info``: what a file of the pipeline holds."""

import argparse
import json
from collections import Counter
from pathlib import Path

import h5py
import pandas as pd

from dinodp import store
from dinodp.commands.arguments import Commands, add_command
from dinodp.errors import InputError
from dinodp.jobs.files import read_json


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    summary = "say what a file of the pipeline holds and what made it"
    parser = add_command(commands, "info", run, summary, summary.capitalize() + ".")
    parser.add_argument("file", type=Path, help="an .h5, .json or .csv file under results/, or a fitted model")


def run(options: argparse.Namespace) -> int:
    """Print the description."""
    print("\n".join(describe_file(options.file)))
    return 0


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
