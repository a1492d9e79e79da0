"""``dinodp info``: what a file of the pipeline holds."""

import argparse
import json
from collections import Counter
from pathlib import Path

import h5py
import pandas as pd

from dinodp import store
from dinodp.commands.arguments import Commands, add_command, say
from dinodp.errors import InputError, told
from dinodp.jobs.files import read_json, user_path
from dinodp.jobs.strangers import require_plain


def add(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    summary = "say what a file of the pipeline holds and what made it"
    parser = add_command(commands, "info", run, summary, summary.capitalize() + ".")
    parser.add_argument("file", type=user_path, help="an .h5, .json or .csv file under results/, or a fitted model")


def run(options: argparse.Namespace) -> int:
    """Print the description."""
    say(*describe_file(options.file))
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
    require_plain(path, store.require_whole, gathered=True)

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            lines.append(f"  {name}: {item.dtype} {list(item.shape)}")

    with store.reading(path) as file:
        lines.extend(f"  {key}: {value}" for key, value in sorted(file.attrs.items()))
        file.visititems(visit)
    return lines


def _describe_json(path: Path) -> list[str]:
    with told(f"{path} is not valid JSON", ValueError, RecursionError):
        return json.dumps(read_json(path), indent=2, sort_keys=True).splitlines()


def _describe_csv(path: Path) -> list[str]:
    with told(f"{path} is not a readable CSV table", Exception):  # pandas raises many kinds
        frame = pd.read_csv(path)
    lines = [f"  {len(frame)} rows; columns: {', '.join(frame.columns)}"]
    if {"split", "label"} <= set(frame.columns):
        counts = Counter(zip(frame["split"], frame["label"], strict=True))
        lines.extend(f"  {split}, {label}: {count} images" for (split, label), count in sorted(counts.items()))
    return lines
