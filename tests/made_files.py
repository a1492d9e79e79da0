"""Files of the pipeline that tests write themselves, with the origin that its readers ask for."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from dinodp import store
from dinodp.datasets.manifest import manifest_digest
from dinodp.images import image_score
from dinodp.jobs.origin import write_table


def write_tokens(path: Path, tokens: np.ndarray, manifest: pd.DataFrame, foreground: np.ndarray | None = None) -> Path:
    """Embeddings [image, row, col, dim] of a split of a manifest; ``foreground`` [image, row, col]: default, all."""
    shown = np.ones(tokens.shape[:3], dtype=bool) if foreground is None else foreground
    with store.writing(path, "embeddings", {}, {"manifest": manifest_digest(manifest)}) as file:
        file.create_dataset("tokens", data=tokens.astype(np.float16), track_times=False)
        file.create_dataset(store.FOREGROUND, data=shown, track_times=False)
    return path


def write_scores(path: Path, maps: Mapping[str, np.ndarray], manifest: pd.DataFrame, model: str = "0") -> Path:
    """Scores [image, row, col] of a split of a manifest by a model with this digest."""
    made_from = {"manifest": manifest_digest(manifest), "model": model, "tokens": "0"}
    store.write_maps(path, {}, maps, {name: image_score(values) for name, values in maps.items()}, made_from)
    return path


def write_csv(frame: pd.DataFrame, path: Path, made_from: Mapping[str, str] | None = None) -> Path:
    """A table of the run."""
    write_table(path, frame.to_csv(index=False), "dinodp.evaluation.collecting", made_from or {})
    return path


def flip(path: Path, place: int, bit: int = 0) -> None:
    """Change one bit of a file; a negative place counts from its end."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)
