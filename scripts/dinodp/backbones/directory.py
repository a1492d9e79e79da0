"""A backbone's directory in Hugging Face format, as far as it is known without loading the weights."""

import json
from pathlib import Path
from typing import Any

from dinodp.errors import InputError

MODEL_TYPES = ("dinov2", "dinov2_with_registers", "dinov3_vit", "vit")
WEIGHTS = ("*.safetensors", "*.bin")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError for anything else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The file {file} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"The file {file} holds no JSON object.")
    return content


def block_numbers(layers: tuple[int, ...], n_blocks: int, name: str) -> tuple[int, ...]:
    """Turn -1 (last), -2, ... and 1, 2, ... into block numbers from 1."""
    if not layers:
        raise InputError(f"No layer of {name} was asked for: use -1 for the last.")
    for layer in layers:
        if layer == 0 or abs(layer) > n_blocks:
            raise InputError(f"Unknown layer {layer} of {name}: choose 1 to {n_blocks}, or -1 (last) to -{n_blocks}.")
    return tuple(layer if layer > 0 else n_blocks + 1 + layer for layer in layers)


def require_files(directory: Path) -> None:
    """Raise InputError for a directory without configuration or weights."""
    if not (directory / "config.json").is_file():
        raise InputError(f"The backbone directory {directory} has no config.json: it is not in Hugging Face format.")
    if not weight_files(directory):
        raise InputError(f"The backbone directory {directory} has no weights ({' or '.join(WEIGHTS)}).")


def weight_files(directory: Path) -> list[Path]:
    """Files that transformers would load: safetensors where there are any, else pickled weights."""
    return next((files for files in (sorted(directory.glob(pattern)) for pattern in WEIGHTS) if files), [])
