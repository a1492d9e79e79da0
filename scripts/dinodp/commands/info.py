"""``dinodp info``: what a file of the pipeline holds."""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import pandas as pd

from dinodp import store
from dinodp.commands.arguments import Commands, add_command, say
from dinodp.errors import InputError, told
from dinodp.jobs.files import read_json, user_path
from dinodp.jobs.strangers import require_plain
from dinodp.scans.naming import weights_of

DETECTOR = "detector"


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
        attributes = dict(file.attrs.items())
        if attributes["format"] == DETECTOR:
            with told(f"{path} is not what this version of dinodp writes", KeyError, TypeError, ValueError):
                needs, attributes["config"] = _detector(path, store.config_of(file))
            lines.extend(needs)
        lines.extend(f"  {key}: {value}" for key, value in sorted(attributes.items()))
        file.visititems(visit)
    return lines


def _detector(path: Path, config: dict[str, Any]) -> tuple[list[str], str]:
    """What a model of own scans needs, line by line, and its configuration without what is long."""
    settings, healthy, backbone, weights = (config[name] for name in ("settings", "healthy", "backbone", "weights"))
    colour = "colour" if healthy["channels"] == 3 else "grey"
    slices = f"{settings['axis']} slices" if healthy["kind"] == "volume" else f"{healthy['depth']} bits"
    spacing = "".join(f", {low:.3g} to {high:.3g} mm" for low, high in healthy["spacing"])
    values = f"{float(healthy['low'][0]):g} to {float(healthy['high'][1]):g}"
    digest = str(backbone.get("weights_sha256", "none"))
    needs = [
        "  needs:",
        f"    scans: {colour} {healthy['kind']}s, {slices}{spacing}, values {values}",
        f"    backbone: {backbone['backbone']}, revision {backbone['revision']}, SHA-256 of its weights {digest}",
        f"    weights: {_where(path, settings, backbone, weights)}",
    ]
    tail, digests = config["calibration"].pop("tail"), config["origin"].pop("scans_sha256")
    config["calibration"]["tail_voxels"], config["origin"]["digests"] = tail["count"], len(digests)
    return needs, json.dumps(config, sort_keys=True)


def _where(path: Path, settings: dict[str, Any], backbone: dict[str, Any], weights: dict[str, Any] | None) -> str:
    """Where the weights of a model are found; the network is not asked."""
    name = str(settings["backbone"])
    if name == "classical":
        return "none are needed"
    if weights is not None:
        there = "beside the model" if weights_of(path).is_dir() else "missing: they belong beside the model"
        return f"{there}, in {weights_of(path)}, licence {weights['licence']}"
    if backbone["revision"] == "local":
        return f"in {name}" if Path(name).is_dir() else f"not in {name} any more: say with --backbone where they are"
    return f"{_in_cache(name, str(backbone['revision']))} the cache of the Hugging Face hub"


def _in_cache(name: str, revision: str) -> str:
    import huggingface_hub

    try:
        huggingface_hub.snapshot_download(name, revision=revision, local_files_only=True)
    except Exception:  # of several libraries: for whatever reason, it is not there
        return "not in"
    return "in"


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
